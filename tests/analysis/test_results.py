"""The ladder in results/: its page, its figures and its records belong together."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from analysis.__main__ import main
from analysis.report import source_of
from analysis.views import load
from experiments.store.run_dir import RunDir
from experiments.studies import frozen
from tests.conftest import ROOT

RESULTS = ROOT / "results"
RUNS = RESULTS / "fashion_mnist"
REPORT = RESULTS / "report"
PAGE = ROOT / "docs" / "results.md"
STUDIES = ("ladder", "leave_one_out", "kernel_without_move")
LARGEST = 8_000_000  # bytes of everything committed below results/


def tracked(folder: Path) -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z", str(folder)], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in names.stdout.split("\0") if name]


@pytest.fixture(scope="module")
def made_anew(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report and the page, made from the committed records as `make figures` does."""
    out = tmp_path_factory.mktemp("report")
    shutil.copy(PAGE, out / "page.md")
    assert main([str(RUNS), "--out", str(out), "--formats", "png", "--document", str(out / "page.md")]) == 0
    return out


def test_every_number_of_the_page_comes_from_the_records(made_anew: Path) -> None:
    assert (made_anew / "page.md").read_text() == PAGE.read_text(), "docs/results.md is stale: run `make figures`"


@pytest.mark.parametrize("name", ["ladder.csv", "ladder.md", "ladder.tex", "runs.csv", "skipped.csv"])
def test_tables_are_those_of_the_records(made_anew: Path, name: str) -> None:
    assert (made_anew / name).read_text() == (REPORT / name).read_text(), f"{name} is stale: run `make figures`"


def test_figures_are_those_of_the_records() -> None:
    """A PNG says what it was drawn from; its pixels may differ between versions of matplotlib."""
    figures = [path for path in tracked(REPORT) if path.suffix == ".png"]
    assert len(figures) >= 8
    drawn = {path.name: Image.open(path).text.get("Source") for path in figures}  # type: ignore[attr-defined]
    assert set(drawn.values()) == {source_of(load(RUNS)[0])}, f"run `make figures`: {drawn}"


@pytest.mark.parametrize("name, source", [("paper-ladder", "paper"), ("own-ladder", RUNS)])
def test_the_readmes_figures_are_those_of_their_numbers(name: str, source: str | Path) -> None:
    drawn = Image.open(ROOT / "docs" / f"{name}.png").text.get("Source")  # type: ignore[attr-defined]
    assert drawn == source_of(load(source)[0]), f"docs/{name}.png is stale: run `make figures`"


def test_the_pictures_of_the_documents_exist() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r'!\[[^]]*\]\(([^)]+)\)|<img[^>]+src="([^"]+)"', document.read_text()):
            assert (document.parent / "".join(target)).is_file(), (document.name, target)


@pytest.mark.parametrize("name", STUDIES)
def test_the_committed_records_count_as_finished(name: str) -> None:
    """With runs_dir=results/fashion_mnist the studies have nothing left to do."""
    (path,) = (RUNS / "studies").glob(f"{name}-*.json")
    runs = [run.replace(runs_dir=str(RUNS)) for run in frozen.read_study(path).runs]
    assert len({run.seed for run in runs}) >= 3
    assert [run.label for run in runs if RunDir.locate(run).state() != "finished"] == []


def test_what_is_committed_is_small_and_names_no_machine() -> None:
    files = tracked(RESULTS)
    assert sum(path.stat().st_size for path in files) < LARGEST
    for path in files:
        assert path.name not in ("environment.json", "last.safetensors"), path
        if path.suffix == ".json" and path.parent.name != "studies":
            assert not re.search(r'"/(home|root|tmp|work|Users)\b', json.dumps(json.loads(path.read_text()))), path
