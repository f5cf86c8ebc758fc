"""The analysis follows a chosen roadmap: one of one's own, with changes of the training, behind another or alone."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

STEPS = {
    "own_start": {},
    "own_smooth": {"recipe": {"label_smoothing": 0.2}},
    "own_crop": {"recipe": {"eval_crop": 0.95}},  # digits fixes it: no effect there
    "own_act": {"act": "gelu"},
    "own_long": {"recipe": {"epochs": 600}},
    "own_mean": {"recipe": {"ema": 0.9}},
    "own_grown": {"width": 48},  # of the other roadmap
}
ROADMAPS = {
    "own": {"published": "own.csv", "steps": [name for name in STEPS if name != "own_grown"]},
    "onward": {"behind": "convnext", "steps": ["separate_downsampling", "own_grown"]},
}
PUBLISHED = {
    "own_start": 76.0,
    "own_smooth": 76.5,
    "own_crop": 76.6,
    "own_act": 77.0,
    "own_long": 78.0,
    "own_mean": 78.4,
}
SECTION = {"own_act": "model", "own_mean": "averaging"}
TRAIN = """
import json, sys
from pathlib import Path
from tests.analysis import factory
from tests.analysis.composed import record
for number, (typed, top1, ema) in enumerate(json.loads(sys.argv[2])):
    one = record(typed, top1, ema)
    factory.write(Path(sys.argv[1]), one)
    print(one["label"], one["step"], one["config_id"])
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the roadmaps and steps."""
    root = tmp_path_factory.mktemp("own")
    for group in ("step", "roadmap"):
        (root / group).mkdir()
    for name, delta in STEPS.items():
        content = {"step": name} | ({"changes": {name: delta}} if delta else {})
        (root / "step" / f"{name}.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(content)}")
    for name, rest in ROADMAPS.items():
        content = {"name": name, "title": f"The road {name}", "source": f"A page on {name}", **rest}
        text = {"defaults": [{"override /recipe": "enhanced"}], "roadmap": content}
        (root / "roadmap" / f"{name}.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(text, sort_keys=False)}")
    heads = "regime,order,step,section,paper_label,top1,top1_std,seeds,gflops,adopted,note\n"
    rows = [
        f"tiny,{i},{name},{SECTION.get(name, 'training')},{name.replace('_', ' ')},{top1},,,,yes,\n"
        for i, (name, top1) in enumerate(PUBLISHED.items())
    ]
    (root / "roadmap" / "own.csv").write_text(heads + "".join(rows))
    return root


def python(own: Path | None, *arguments: str, code: int = 0) -> str:
    """What a command prints with the folder on the path (None: without it)."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ROADMAP_PATH": str(own or "")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row.get("step") or row["name"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def runs(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ladder `own` on digits, each change left out of its end, and a typed key; two seeds; the means are known."""
    folder = tmp_path_factory.mktemp("runs")
    path = [name for name in STEPS if name not in ("own_grown", "own_crop")]
    jobs: list[tuple[list[str], float, float | None]] = []
    for seed in (0, 1):
        noise = 0.1 * seed
        for place, name in enumerate(path):
            typed = ["roadmap=own", f"+step={name}", f"seed={seed}"]
            jobs.append((typed, 80 + place + noise, 90 + noise if name == "own_mean" else None))
        for name in ("own_smooth", "own_act", "own_long"):
            typed = ["roadmap=own", "+step=own_mean", f"drop=[{name}]", f"seed={seed}"]
            jobs.append((typed, 50 + noise, 89.5 + noise))
        jobs.append((["roadmap=own", "+step=own_act", "recipe.weight_decay=0.2", f"seed={seed}"], 81 + noise, None))
        jobs.append((["roadmap=onward", "+step=own_grown", f"seed={seed}"], 85 + noise, None))
        jobs.append((["+step=separate_downsampling", f"seed={seed}"], 84 + noise, None))
    python(own, "-c", TRAIN, str(folder), json.dumps(jobs))
    return folder


@pytest.fixture(scope="module")
def report(own: Path, runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("out")
    return out, python(own, "-m", "analysis", str(runs), "--out", str(out), "--roadmap", "own", "--formats", "svg")


def test_the_rows_are_the_roadmaps_with_gains_over_what_has_an_effect(report: tuple[Path, str]) -> None:
    rows = rows_of(report[0] / "ladder.csv")
    assert list(rows) == list(PUBLISHED)
    assert (rows["own_crop"]["status"], rows["own_crop"]["top1"]) == ("no effect", "")
    assert rows["own_act"]["parent"] == "own_smooth"  # over the parent of the row without effect
    assert float(rows["own_act"]["gain"]) == pytest.approx(1)
    assert float(rows["own_act"]["paper_gain"]) == pytest.approx(0.5)
    assert rows["own_long"]["verdict"] != "missing"  # other epochs are no other ladder
    page = (report[0] / "report.html").read_text()
    assert (
        "“own crop” has no effect here: recipe.eval_crop is fixed by data=digits, so it is the row before it." in page
    )
    assert "The road own" in page and "the paper" not in page.split("<script>")[0].replace("the paper's", "the paper")


def test_accuracy_of_averaged_weights_where_a_change_asks_for_them(report: tuple[Path, str]) -> None:
    rows = rows_of(report[0] / "ladder.csv")
    assert float(rows["own_mean"]["top1"]) == pytest.approx(90.05)
    assert rows["own_mean"]["top1_best"] == ""
    page = (report[0] / "report.html").read_text()
    assert "Top-1 of the averaged weights (EMA)" in page and "own mean." in page
    assert "of the averaged weights (EMA) where a step asks for them" in page  # the caption of the figures


def test_attribution_runs_over_changes_of_network_and_training(report: tuple[Path, str]) -> None:
    page = (report[0] / "report.html").read_text()
    assert "Left out: own_mean minus the same without the change." in page
    assert page.count("+0.50") >= 3  # of each change that was left out


def test_what_is_no_row_stands_beside_the_nearest(report: tuple[Path, str]) -> None:
    further = rows_of(report[0] / "further.csv")
    typed = next(row for row in further.values() if "weight_decay" in row["differs"])
    assert typed["over"] == "own act" and typed["differs"] == "recipe.weight_decay=0.2 (0.05)"
    assert float(typed["gain"]) == pytest.approx(-1)
    assert "separate_downsampling" in further and "onward.own_grown" in further


def test_a_roadmap_behind_another_shares_its_runs(own: Path, runs: Path, tmp_path: Path) -> None:
    command = ("-m", "analysis", str(runs), "--out", str(tmp_path), "--formats", "svg")
    python(own, *command, "--roadmap", "onward")
    rows = rows_of(tmp_path / "ladder.csv")
    assert list(rows) == ["separate_downsampling", "own_grown"]
    assert float(rows["own_grown"]["gain"]) == pytest.approx(1)
    python(own, *command)  # from the cache, for the default roadmap
    assert float(rows_of(tmp_path / "ladder.csv")["separate_downsampling"]["top1"]) == pytest.approx(84.05)


def test_runs_of_steps_that_are_not_here_are_read_and_said(runs: Path, tmp_path: Path) -> None:
    said = python(None, "-m", "analysis", str(runs), "--out", str(tmp_path), "--formats", "svg")
    assert "damaged" not in said
    assert "there is no file here of own_act, own_grown, own_long, own_mean, own_smooth" in said
    assert {"onward.own_grown", "own.own_mean"} <= set(rows_of(tmp_path / "further.csv"))


def test_the_published_ladder_counts_what_was_not_printed(own: Path, tmp_path: Path) -> None:
    python(own, "-m", "analysis", "paper", "--roadmap", "own", "--out", str(tmp_path), "--formats", "svg")
    rows = rows_of(tmp_path / "ladder.csv")
    assert [float(row["top1"]) for row in rows.values()] == list(PUBLISHED.values())
    assert float(rows["own_start"]["gmacs"]) == pytest.approx(4.09, abs=0.01)  # ResNet-50
    page = (tmp_path / "report.html").read_text()
    assert "A page on own" in page and "Swin" not in page and "counted at 224 px where none were published" in page


def test_a_roadmap_without_published_numbers_or_without_a_file_is_one_line(own: Path, tmp_path: Path) -> None:
    command = ("-m", "analysis", "paper", "--out", str(tmp_path), "--roadmap")
    assert "roadmap=onward has no published numbers" in python(own, *command, "onward", code=2)
    assert "roadmap='onwards' is not one of: convnext, " in python(own, *command, "onwards", code=2)
