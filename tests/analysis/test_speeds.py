"""The paper's networks with the speeds of one's own device: `--speeds`."""

import json
import math
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.figures.tradeoff import tradeoff_figure
from analysis.ladder import paper_ladder
from analysis.speeds import SWIN, read_speeds
from experiments.bench.step import PEERS
from experiments.errors import ConfigError
from roadmap import STEPS


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A file of `bench` with all rows at 224 px, and benchmarks that do not count."""
    rows = [{"network": step.name, "images_per_second": 100.0 + i} for i, step in enumerate(STEPS)]
    rows += [{"network": SWIN, "images_per_second": 90.0}, {"network": "timm resnet50", "images_per_second": 1.0}]
    ends = {"rows": [rows[0] | {"images_per_second": 1.0}, rows[16] | {"images_per_second": 1.0}]}
    names = {"step 224px bf16 eager": {"rows": rows}, "step 224px fp32 eager": ends, "step 32px fp32 eager": ends}
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"device": "a GPU", "benchmarks": {**names, "numerics": {"rows": [{"x": 1}]}}}))
    return path


def test_the_benchmark_with_the_most_rows_at_224_px_counts(measured: Path) -> None:
    ladder = paper_ladder("tiny", read_speeds(measured))
    assert ladder.table["images_per_second"].tolist() == [100.0 + i for i in range(17)]
    assert ladder.reference_speed == 90.0
    assert ladder.notes[-1] == "Images per second: measured, 224 px, bf16 eager, a GPU."


def test_swin_has_the_name_that_the_benchmark_gives_it() -> None:
    assert SWIN in PEERS


def test_networks_of_another_size_have_no_speed(measured: Path) -> None:
    ladder = paper_ladder("base", read_speeds(measured))
    assert ladder.table["images_per_second"].isna().all() and math.isnan(ladder.reference_speed)


def test_swin_stands_in_the_figure_at_its_measured_speed(measured: Path) -> None:
    figure = tradeoff_figure(paper_ladder("tiny", read_speeds(measured)), "images_per_second")
    (axes,) = figure.axes
    points = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "s"}
    assert points == {(90.0, 81.3)}
    assert "Swin-T" in {text.get_text() for text in axes.texts}


def test_the_command_draws_it(measured: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["paper", "--out", str(out), "--formats", "svg", "--speeds", str(measured)]) == 0
    assert (out / "figures" / "accuracy-images-per-second.svg").exists()
    assert "Images per second: measured, 224 px" in (out / "report.html").read_text()


@pytest.mark.parametrize("content", ["", "[]", '{"device": 1}', '{"device": "x", "benchmarks": {"step 224px a b": 1}}'])
def test_another_file_is_one_clear_line(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    assert main(["paper", "--out", str(tmp_path / "out"), "--speeds", str(path)]) == 2
    assert f"--speeds {path} is no file of" in capsys.readouterr().err


def test_a_file_without_steps_at_224_px_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"device": "x", "benchmarks": {}}))
    with pytest.raises(ConfigError, match=r"bench step --rows all --size 224"):
        read_speeds(path)
