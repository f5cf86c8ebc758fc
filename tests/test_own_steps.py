"""A step of one's own is a YAML file: in a copy of the tree with three more, all that lists steps goes on."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from roadmap.steps import END
from tests.conftest import ROOT

PARTS = ("analysis", "conf", "experiments", "hydra_plugins", "roadmap", "tests/analysis/factory.py", "run.py")
# Name -> parent and change: behind the end, overriding kernel_7; in the middle; an alternative of kernel_7.
OWN = {
    "kernel_13": (END.name, {"kernel_size": 13}),
    "slim": ("depthwise", {"width": 48}),
    "kernel_15": ("move_up_depthwise", {"kernel_size": 15}),
}
RECORDS = """
import sys
from pathlib import Path
from roadmap.resolve import step_at
from roadmap.steps import BY_NAME
from tests.analysis import factory
runs, players = Path(sys.argv[1]), BY_NAME[sys.argv[2]].changes
factory.write_all(runs, factory.ladder(lambda name: 70.0 + len(BY_NAME[name].changes), seeds=(0, 1)))
for one in (*(tuple(p for p in players if p != out) for out in players), *((p,) for p in players)):
    if step_at(one) is None:
        factory.write_all(runs, (factory.record(None, s, 70.0 + len(one) + s / 9, changes=one) for s in (0, 1)))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree with the three steps."""
    root = tmp_path_factory.mktemp("copy")
    for part in PARTS:
        place = root / part
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, place)
    for name, (parent, delta) in OWN.items():
        content = {"defaults": [parent, "_self_"], "step": name, "changes": {name: delta}}
        (root / "conf" / "step" / f"{name}.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(content)}")
    return root


def python(copy: Path, *arguments: str) -> str:
    """What a command prints in the copy; it must succeed."""
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_ladder_has_their_rows_and_keeps_its_end(copy: Path) -> None:
    rows = list(csv.DictReader(python(copy, "-m", "roadmap", "--format", "csv").splitlines()))
    parents = {row["step"]: row["parent"] for row in rows}
    assert {name: parents[name] for name in OWN} == {name: parent for name, (parent, _) in OWN.items()}
    program = "from roadmap.steps import END, STEPS; print(END.name, *(s.name for s in STEPS if not s.on_path))"
    side_branches = ["slim", "kernel_5", "kernel_9", "kernel_11", "kernel_15", "kernel_13"]
    assert python(copy, "-c", program).split() == [END.name, *side_branches]


def test_they_are_explained_and_stand_in_the_readmes_table(copy: Path) -> None:
    assert "kernel_size=13 (was 7)" in python(copy, "-m", "roadmap", "explain", "kernel_13", "--figure", "block.svg")
    assert "width=48 (was 64)" in python(copy, "-m", "roadmap", "explain", "slim")
    document = copy / "document.md"
    document.write_text("<!-- ladder:begin -->\n<!-- ladder:end -->\n")
    python(copy, "-m", "roadmap", "readme", "document.md")
    assert "`kernel_13` (side branch)" in document.read_text()


def test_a_run_is_at_its_step_although_the_step_overrides_another(copy: Path) -> None:
    program = (
        "from experiments.config.schema import compose, register\n"
        "from experiments.config.compose import settings_from\n"
        "register()\n"
        "for typed in (['+step=kernel_13'], ['+step=kernel_13', 'drop=[gelu]'], ['+step=slim']):\n"
        "    run = settings_from(compose([*typed, 'regime=micro']), typed); print(run.step, run.label)"
    )
    assert python(copy, "-c", program).splitlines() == [
        "kernel_13 kernel_13",
        "None kernel_13-gelu",
        "slim slim",
    ]


def test_the_ladder_study_has_them(copy: Path) -> None:
    command = ("plan", "+study=ladder", "regime=micro", "seed=0", "--speed", "none", "--format", "csv")
    plan = python(copy, "-m", "experiments", *command)
    assert set(OWN) <= {line.split(",")[0] for line in plan.splitlines()}


def test_the_analysis_has_their_gains_and_keeps_the_changes_by_themselves(copy: Path) -> None:
    python(copy, "-c", RECORDS, "runs", END.name)
    python(copy, "-m", "analysis", "runs", "--out", "out", "--formats", "png")
    with (copy / "out" / "ladder.csv").open(newline="") as file:
        rows = {row["step"]: row for row in csv.DictReader(file)}
    assert rows["kernel_13"]["parent"] == END.name
    assert float(rows["kernel_13"]["gain"]) == pytest.approx(1, abs=0.6)
    page = (copy / "out" / "report.html").read_text()
    assert "Each change by itself" in page
    assert "Left out: separate_downsampling minus the same without the change." in page
    assert "Alone: resnet50 under recipe=enhanced plus the change alone." in page


def test_the_papers_ladder_is_the_papers(copy: Path) -> None:
    python(copy, "-m", "analysis", "paper", "--out", "paper", "--formats", "png")
    with (copy / "paper" / "ladder.csv").open(newline="") as file:
        steps = [row["step"] for row in csv.DictReader(file)]
    assert steps[-1] == END.name
    assert set(OWN) & set(steps) == set()
