"""A few minutes of every storm, and that the page with the full figures is up to date."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from analysis import collect
from experiments.commands import status
from experiments.store import cache, checkpoint
from roadmap import seals
from tests.storms import damage, final, report
from tests.storms.__main__ import SUITES
from tests.storms.variants import FAULTED

# Enough to meet every variant, payload group and kind of error once; the full sizes are in tests/storms/__main__.py.
SUBSET = {
    "damage": 300,
    "final": 300,
    "faults": 15,
    "hostile": 26,
    "records": 30,
    "kill": 16,
    "resume": 15,
    "controls": 8,
    "signals": 9,
    "owners": 10,
    "starts": 4,
    "studies": 6,
}


def test_every_suite_has_a_subset() -> None:
    assert SUBSET.keys() == SUITES.keys()


@pytest.mark.timeout(1500)  # a busy machine takes several times the minute that a suite takes alone
@pytest.mark.parametrize("suite", list(SUBSET))
def test_a_part_of_the_storm(suite: str, tmp_path: Path, repo_root: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.storms",
        suite,
        "--count",
        str(SUBSET[suite]),
        "--out",
        str(tmp_path / "out"),
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=repo_root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    figures = json.loads((tmp_path / "out").read_text())
    assert figures["passed"] == figures["total"] == SUBSET[suite]
    if suite == "kill":
        assert figures["moments"]["inside a checkpoint write"] >= SUBSET[suite] // 4


WATCHED_RUN = """
import os, runpy, sys
home, writers = os.path.realpath(sys.argv[1]), set()
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and os.path.realpath(os.fspath(arguments[0])).startswith(home):
            writers.add(os.path.basename(sys._getframe(1).f_code.co_filename))
sys.addaudithook(hook)
sys.argv = ["run.py", *sys.argv[2:]]
try:
    runpy.run_path("run.py", run_name="__main__")
finally:
    print("writers", *sorted(writers))
"""


def test_only_the_modules_that_the_faults_suite_reaches_write_into_a_run(tmp_path: Path, repo_root: Path) -> None:
    command = [sys.executable, "-c", WATCHED_RUN, str(tmp_path), *FAULTED.command(tmp_path)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=repo_root, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "writers atomic.py lock.py"


@pytest.mark.parametrize("check", ["_check_tensors", "_check_manifest"])
def test_the_damage_suite_fails_when_a_check_is_left_out(
    check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, run_id in ((tmp_path, damage.RUN), (tmp_path / "foreign", damage.OTHER_RUN)):
        folder.mkdir(exist_ok=True)
        store = checkpoint.Checkpoints(folder, run_id, background=False)
        for step in (damage.OLDER, damage.NEWEST):
            store.save(step, damage.state_of(step, other=run_id == damage.OTHER_RUN), {})
    careless = {
        "_check_tensors": lambda data, manifest, path: checkpoint.parse_tensors(data, path),
        "_check_manifest": lambda folder, run_id: checkpoint.parse((folder / checkpoint.MANIFEST).read_bytes()),
    }
    monkeypatch.setattr(checkpoint, check, careless[check])
    assert any(problem for _, problem in (damage.trial(index, 0, tmp_path) for index in range(60)))


# what is left out -> the storm's kind that must notice, and what takes the place of which parts
LEFT_OUT: dict[str, tuple[str, list[tuple[ModuleType, str, Any]]]] = {
    "digest": ("edited record", [(seals, "digest_of", lambda text: seals._DIGEST_LINE.search(text)[1].decode())]),
    "seals": ("another run's files", [(seals, "_problem", lambda path, sealed: None)]),
    "name": ("another run as a whole", [(seals, "_RUN_NAME", re.compile("none"))]),
    "stamp": (
        "another run's files",
        [(module, "stamp_of", lambda *_: cache.Stamp("", 0, 1 << 62)) for module in (status, collect)],
    ),
}


@pytest.mark.parametrize("check", list(LEFT_OUT))
def test_the_final_suite_fails_when_a_check_is_left_out(
    check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final.write_template(tmp_path / "runs")
    kind, parts = LEFT_OUT[check]
    assert not any(problem for _, problem in (final.trial(index, 0, tmp_path / "runs", kind) for index in range(12)))
    for module, name, part in parts:
        monkeypatch.setattr(module, name, part)
    assert any(problem for _, problem in (final.trial(index, 0, tmp_path / "runs", kind) for index in range(12)))


@pytest.mark.parametrize("kind", list(damage.BYTE_DAMAGES))
def test_a_damage_changes_something(kind: str) -> None:
    content = random.Random(0).randbytes(20_000)
    assert damage.damaged_bytes(content, kind, random.Random(1)) != content


def test_the_page_holds_the_figures_of_the_files() -> None:
    page = report.PAGE.read_text()
    assert report.updated(page) == page, "run python -m tests.storms report"
