"""`status` over runs and studies that others wrote: each is a row that says what is wrong, and all others stay."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from experiments.__main__ import main
from experiments.commands import status
from experiments.config.compose import settings_from
from experiments.config.schema import compose
from experiments.config.settings import Settings
from experiments.errors import ConfigError, StorageError
from experiments.store.run_dir import RunDir
from experiments.studies import frozen
from tests.analysis import factory
from tests.conftest import ROOT
from tests.experiments.training.runs import settings_of

RUN = "gelu-micro-s0-0123456789ab"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with one sealed run and one half-done run."""
    folder = tmp_path / "o'brien [x] $y, %s"
    sealed = factory.write(folder, factory.record("resnet50"))
    (sealed / "config.yaml").write_text("recipe: {epochs: 12}\n")
    (folder / RUN).mkdir()
    (folder / RUN / "config.yaml").write_text("recipe: {epochs: 3}\n")
    return folder


def rows_of(runs: Path) -> dict[str, dict[str, str]]:
    found = {row["run"].split("-")[0]: row for row in status.rows(runs)}
    assert found["resnet50"]["state"] == "finished"
    return found


def test_a_message_is_no_markup_and_moves_no_cursor(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "[/red] [bold]x[/bold] \x1b[2J \u202e"
    (runs / RUN / "error.json").write_text(json.dumps({"type": "E", "message": message}))
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["status", str(runs)]) == 0
    printed = capsys.readouterr().out
    assert "E: [/red] [bold]x[/bold] \\x1b[2J \\u202e" in printed and "\x1b" not in printed


LINES = ('{"top1": "much"}', '{"top1": {"a": 1}, "images_per_second": []}', '{"images_per_second": 1e300}', "[1]", "{}")
TIMES = (*LINES, '{"train_seconds": 1, "eval_seconds": "x"}', '{"train_seconds": 1e300, "eval_seconds": 1e300}')


@pytest.mark.parametrize("line", TIMES)
def test_lines_of_other_shapes_are_no_numbers(line: str, runs: Path) -> None:
    for name in ("metrics.jsonl", "timing.jsonl"):
        (runs / RUN / name).write_text(line + "\n")
    row = rows_of(runs)["gelu"]
    assert (row["state"], row["top-1"], row["images/s"], row["time left"]) == ("half", "", "", "")


CONFIGS = (
    "recipe: {epochs: 2001-99-99}",
    "recipe: [1]",
    "a: &a [*a]",
    "- " * 5000,
    "recipe: {epochs: 1" + "0" * 400 + "}",
)


@pytest.mark.parametrize("text", CONFIGS)
def test_a_config_of_another_shape_tells_no_epochs(text: str, runs: Path) -> None:
    (runs / RUN / "config.yaml").write_text(text)
    assert rows_of(runs)["gelu"]["epoch"] == "0"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "error.json", ".claim", "result.json"])
def test_a_pipe_is_not_waited_for(name: str, runs: Path) -> None:
    (runs / RUN / name).unlink(missing_ok=True)
    os.mkfifo(runs / RUN / name)
    assert "gelu" in rows_of(runs)


@pytest.mark.parametrize("owner", [{"pid": 2**40, "host": None}, {"pid": "x"}, {"pid": [], "host": {}}])
def test_an_owner_of_another_shape_owns_nothing(owner: dict[str, Any], runs: Path) -> None:
    (runs / RUN / ".claim").write_text(json.dumps({"host": os.uname().nodename, **owner}))
    assert rows_of(runs)["gelu"]["state"] in ("half", "running")


def test_a_damaged_record_says_why(runs: Path) -> None:
    (runs / RUN / "result.json").write_text('{"params": 1' + "0" * 400 + "}")
    row = rows_of(runs)["gelu"]
    assert row["state"] == "damaged" and "64 bits" in row["note"]


def study_of(runs: Path, **changes: Any) -> Path:
    """A frozen study of one run, whose settings are changed afterwards; its ids stay right."""
    path = runs / "studies" / "one-01234567.json"
    frozen.freeze("one", path, [["seed=0"]], lambda job: settings_of(Path("runs")))
    content = json.loads(path.read_text())
    content["runs"][0]["settings"] |= changes
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("label", ["../../x", "/etc/x", "a/b", "..", "x" * 300, "a\nb", "\x1b"])
def test_a_label_leads_nowhere_else(label: str, runs: Path) -> None:
    path = study_of(runs, label=label)
    with pytest.raises(StorageError, match="label="):
        frozen.read_study(path)
    row = next(row for row in status.rows(runs) if row["run"] == f"studies/{path.name}")
    assert row["state"] == status.UNREADABLE and "label=" in row["note"]
    assert "gelu" in rows_of(runs)


@pytest.mark.parametrize("regime", ["../../x", "a/b"])
def test_a_regime_leads_nowhere_else(regime: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="regime="):
        settings_of(tmp_path).replace(regime=regime)


@pytest.mark.parametrize("text", ["[]", "{}", '{"runs": 3}', '{"results_version": 1, "runs": [[1]]}', "[" * 9999, "\\"])
def test_a_study_that_is_none_is_one_row(text: str, runs: Path) -> None:
    (runs / "studies").mkdir()
    (runs / "studies" / "bad.json").write_text(text)
    row = next(row for row in status.rows(runs) if row["run"] == "studies/bad.json")
    assert row["state"] == status.UNREADABLE and "\n" not in row["note"]
    assert "gelu" in rows_of(runs)


def test_a_study_is_not_written_elsewhere() -> None:
    for name in ("../../x", "/etc/x", ".hidden", "x" * 200, "a\nb"):
        with pytest.raises(ConfigError, match=r"study\.name="):
            frozen.study_path(name, [["seed=0"]], "runs")
    assert frozen.study_path("o'brien, é", [["seed=0"]], "runs").parent == Path("runs/studies")


def test_the_command_of_a_failed_run_is_quoted(runs: Path) -> None:
    path = study_of(runs)
    (settings,) = frozen.read_study(path).runs
    place = RunDir.locate(settings.replace(runs_dir=str(runs)))
    place.path.mkdir()
    (place.path / "config.yaml").write_text("recipe: {epochs: 3}\n")
    place.fail(ConfigError("no good"))
    row = next(row for row in status.rows(runs) if "no good" in row["note"])
    words = shlex.split(row["note"].split("again: ")[1])

    assert words[:2] == ["python", "run.py"]
    config = compose(words[2:])
    assert (config["runs_dir"], config["study"]["file"]) == (str(runs), str(path))


def test_watching_ends_where_a_study_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "bad.json").write_text("{}")
    assert main(["status", str(tmp_path), "--watch", "0.1"]) == 0


@pytest.mark.parametrize("key", ["runs_dir", "data.root", "init_from"])
@pytest.mark.parametrize("value", ["", "a\x00b", "/a/\udcff"])
def test_a_place_is_a_path(key: str, value: str) -> None:

    config = compose(["+step=gelu", "device=cpu"])
    section, _, leaf = key.rpartition(".")
    (config[section] if section else config)[leaf] = value
    with pytest.raises(ConfigError, match=f"{key}=.*must be the path"):
        settings_from(config)


def test_recorded_studies_are_read() -> None:
    studies = sorted(ROOT.glob("results/*/studies/*.json"))
    assert studies and all(isinstance(run, Settings) for path in studies for run in frozen.read_study(path).runs)
