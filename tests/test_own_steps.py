"""Steps of one's own are YAML files in a folder of one's own: everything that lists steps goes on with them there."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from roadmap.steps import END
from tests.conftest import ROOT

# Name -> parent and change: of the training, behind the end; in the middle; an alternative of kernel_7; behind the end,
# overriding what an earlier step sets.
OWN = {
    "more_smoothing": (END.name, {"recipe": {"label_smoothing": 0.2}}),
    "slim": ("depthwise", {"width": 48}),
    "kernel_33": ("move_up_depthwise", {"kernel_size": 33}),
    "kernel_35": (END.name, {"kernel_size": 35}),
}
RECORDS = """
import sys
from pathlib import Path
from roadmap.resolve import step_at
from roadmap.steps import BY_NAME
from tests.analysis import factory
runs, players = Path(sys.argv[1]), BY_NAME[sys.argv[2]].changes
steps = [name for name, step in BY_NAME.items() if not step.own.trains_otherwise]
factory.write_all(runs, factory.ladder(lambda name: 70.0 + len(BY_NAME[name].changes), steps=steps))
for one in (*(tuple(p for p in players if p != out) for out in players), *((p,) for p in players)):
    if step_at(one) is None:
        factory.write_all(runs, (factory.record(None, s, 70.0 + len(one) + s / 9, changes=one) for s in (0, 1)))
"""
QUICK = ("regime=micro", "device=cpu", "recipe.epochs=1", "recipe.warmup_epochs=0", "batch.size=256", "recipe.lr=1e-3")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to work in, with the steps in mine/step."""
    root = tmp_path_factory.mktemp("place")
    (root / "mine" / "step").mkdir(parents=True)
    for name, (parent, delta) in OWN.items():
        content = {"defaults": [parent, "_self_"], "step": name, "changes": {name: delta}}
        text = f"# @package _global_\n{yaml.safe_dump(content)}"
        (root / "mine" / "step" / f"{name}.yaml").write_text(text)
    return root


def python(place: Path, *arguments: str, **variables: str) -> str:
    """What a command prints; it must succeed."""
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ROADMAP_PATH": str(place / "mine"), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=place,
        env=os.environ | own | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["step"]: row for row in csv.DictReader(file)}


def test_the_ladder_has_their_rows_and_keeps_its_end(place: Path) -> None:
    rows = list(csv.DictReader(python(place, "-m", "roadmap", "--format", "csv").splitlines()))
    parents = {row["step"]: row["parent"] for row in rows}
    assert {name: parents[name] for name in OWN} == {name: parent for name, (parent, _) in OWN.items()}
    program = "from roadmap.steps import END, STEPS; print(END.name, *(s.name for s in STEPS if not s.on_path))"
    side_branches = ["slim", "kernel_5", "kernel_9", "kernel_11", "kernel_33", "kernel_35", "more_smoothing"]
    assert python(place, "-c", program).split() == [END.name, *side_branches]


def test_they_are_explained_and_stand_in_the_tables(place: Path) -> None:
    assert "kernel_size=35 (was 7)" in python(place, "-m", "roadmap", "explain", "kernel_35", "--figure", "block.svg")
    assert "width=48 (was 64)" in python(place, "-m", "roadmap", "explain", "slim")
    said = python(place, "-m", "roadmap", "explain", "more_smoothing")
    assert "Of the training, more_smoothing sets: recipe.label_smoothing=0.2" in said
    document = place / "document.md"
    document.write_text("<!-- ladder:begin -->\n<!-- ladder:end -->\n")
    python(place, "-m", "roadmap", "readme", "document.md")
    assert "`kernel_33` (side branch)" in document.read_text()
    assert "+step=more_smoothing" in python(place, str(ROOT / "run.py"), "--help")


def test_a_run_is_at_its_step_although_the_step_overrides_another(place: Path) -> None:
    program = (
        "import sys\n"
        "from experiments.config.schema import compose, register\n"
        "from experiments.config.compose import settings_from\n"
        "register()\n"
        "for line in sys.argv[1:]:\n"
        "    typed = line.split()\n"
        "    run = settings_from(compose([*typed, 'regime=micro']), typed); print(run.step, run.label)"
    )
    asked = (
        *("+step=kernel_35", "+step=kernel_35 drop=[gelu]", "+step=slim", "+step=more_smoothing"),
        *("+step=separate_downsampling add=[more_smoothing]", "+step=gelu add=[more_smoothing]"),
    )
    assert python(place, "-c", program, *asked).splitlines() == [
        "kernel_35 kernel_35",
        "None kernel_35-gelu",
        "slim slim",
        "more_smoothing more_smoothing",
        "more_smoothing more_smoothing",
        "None gelu+more_smoothing",
    ]


def test_they_are_planned_trained_and_reported(place: Path) -> None:
    command = ("plan", "+study=ladder", "regime=micro", "seed=0", "--speed", "none", "--format", "csv")
    plan = python(place, "-m", "experiments", *command)
    assert set(OWN) <= {line.split(",")[0] for line in plan.splitlines()}
    steps = ",".join(("separate_downsampling", "slim", "more_smoothing", "kernel_33"))
    python(place, str(ROOT / "run.py"), "-m", f"+step={steps}", "seed=0,1", "runs_dir=trained", *QUICK)
    records = [json.loads(path.read_text()) for path in (place / "trained").glob("*/result.json")]
    assert {record["step"] for record in records} == {*steps.split(",")}
    smoothed = next(record for record in records if record["step"] == "more_smoothing")
    assert smoothed["recipe"]["label_smoothing"] == 0.2
    assert smoothed["replaced"] == {"recipe.label_smoothing": 0.1}
    python(place, "-m", "analysis", "trained", "--out", "report", "--formats", "png")
    rows = table(place / "report" / "ladder.csv")
    assert {name for name, row in rows.items() if row["n"] == "2"} == {*steps.split(",")}
    assert rows["more_smoothing"]["gain"] != ""
    assert "more smoothing" in (place / "report" / "report.html").read_text()


def test_without_their_folder_the_runs_are_read_and_a_line_says_so(place: Path) -> None:
    if not (place / "trained").exists():
        pytest.skip("trained by the test before")
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "analysis", "trained", "--out", "elsewhere", "--formats", "png"]
    done = subprocess.run(command, cwd=place, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "more_smoothing" in done.stdout


def test_the_notebook_shows_them(place: Path) -> None:
    notebook = json.loads((ROOT / "analysis" / "notebooks" / "explore_a_step.ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    script = "\n".join("".join(cell["source"]) for cell in code)
    chosen = 'STEP = "move_up_depthwise"'
    assert chosen in script
    script = script.replace(chosen, 'STEP = "kernel_33"').replace("%matplotlib inline", "")
    (place / "notebook.py").write_text(script)
    python(place, "notebook.py")


def test_the_analysis_has_their_gains_and_keeps_the_changes_by_themselves(place: Path) -> None:
    python(place, "-c", RECORDS, "runs", END.name)
    python(place, "-m", "analysis", "runs", "--out", "out", "--formats", "png")
    rows = table(place / "out" / "ladder.csv")
    assert rows["kernel_35"]["parent"] == END.name
    assert float(rows["kernel_35"]["gain"]) == pytest.approx(1, abs=0.6)
    page = (place / "out" / "report.html").read_text()
    assert "Each change by itself" in page
    assert "Left out: separate_downsampling minus the same without the change." in page
    assert "Alone: resnet50 under recipe=enhanced plus the change alone." in page


def test_the_papers_ladder_is_the_papers(place: Path) -> None:
    python(place, "-m", "analysis", "paper", "--out", "paper", "--formats", "png")
    steps = list(table(place / "paper" / "ladder.csv"))
    assert steps[-1] == END.name
    assert set(OWN) & set(steps) == set()


def test_an_installed_package_contributes_a_folder(place: Path) -> None:
    """By an entry point; the same folder on the path as well is one folder, and a name that leads nowhere is said."""
    site = place / "site"
    (site / "theirs").mkdir(parents=True)
    shutil.copytree(place / "mine", site / "theirs" / "conf")
    points = site / "theirs-1.0.dist-info" / "entry_points.txt"
    points.parent.mkdir()
    (points.parent / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    points.write_text("[convnext_roadmap.conf]\ntheirs = theirs.conf\n")
    own = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(site)))}
    for folders in ("", str(site / "theirs" / "conf")):
        assert "kernel_35" in python(place, "-m", "roadmap", ROADMAP_PATH=folders, **own)
    shown = python(place, str(ROOT / "run.py"), "+step=kernel_35", "--cfg", "job", ROADMAP_PATH="", **own)
    assert "label: kernel_35" in shown
    points.write_text("[convnext_roadmap.conf]\ntheirs = theirs.cnf\n")
    with pytest.raises(AssertionError, match=r"entry point theirs of convnext_roadmap.conf: theirs.cnf is no folder"):
        python(place, "-m", "roadmap", ROADMAP_PATH="", **own)
