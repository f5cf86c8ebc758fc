"""Records, names and settings that others wrote: each is named and left out, or shown as the text that it is."""

import csv
import io
import json
import os
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from analysis import document, tables, theme
from analysis.__main__ import main
from analysis.collect import Skipped, collect
from analysis.groups import groups_of
from analysis.page import Section, Table, render
from analysis.planned import commands_in
from analysis.views import views_of
from roadmap.pipes import quietly
from tests.analysis import factory

GOOD = ("resnet50", "gelu")
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two sound runs."""
    return factory.write_all(tmp_path / "runs", [factory.record(step) for step in GOOD], metrics=True)


BAD_RECORDS = {
    "params": ({"params": 10**400}, "64 bits"),
    "seed": ({"seed": 2**70}, "64 bits"),
    "gmacs": ({"gmacs": 1e300}, "gmacs=1e\\+300 is outside"),
    "surrogate": ({"device": "\ud800"}, "surrogate"),
    "commit": ({"git": {"commit": ["x"], "dirty": False}}, "git_commit is a list"),
    "dirty": ({"git": {"commit": None, "dirty": {}}}, "int\\(\\)"),
    "recipe": ({"recipe": factory.RECIPES["enhanced"] | {"mixup": {"a": 1}}}, "recipe.mixup="),
    "data": ({"data": {"name": "digits", "eval_images": "many"}}, "data.eval_images="),
    "batch": ({"batch": {"size": [64], "micro": 1}}, "batch.size="),
    "replaced": ({"replaced": {"recipe.lr": {}}}, "replaced.recipe.lr="),
    "idle": ({"idle": [[1]]}, "unhashable"),
    "label": ({"label": "x" * 10_000}, "label has 10000 letters"),
    "deep": ({"versions": json.loads("[" * 100 + "]" * 100)}, "versions is a list|deeply"),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_a_record_of_other_shapes_is_named_and_left_out(name: str, runs: Path) -> None:
    fields, reason = BAD_RECORDS[name]
    record = factory.record("layer_norm")
    folder = factory.write(runs, record)
    (folder / "result.json").write_text(json.dumps(record | fields))
    found = collect(runs, runs.parent / "cache.sqlite")
    assert set(found.runs["label"]) == set(GOOD)
    (left_out,) = found.skipped
    assert left_out.state == "damaged" and re.search(reason, left_out.why)
    assert set(collect(runs, runs.parent / "cache.sqlite").runs["label"]) == set(GOOD)


@pytest.mark.parametrize(
    "line",
    [
        '{"epoch": "one", "top1": 3}',
        '{"epoch": 1, "top1": {"a": 1}}',
        '{"epoch": 1e300, "top1": 5}',
        "[1]",
        '{"epoch": [1]}',
    ],
)
def test_metrics_of_other_shapes_cost_only_their_points(line: str, runs: Path) -> None:
    sound = next(runs.glob("gelu-*")) / "metrics.jsonl"
    sound.write_text(line + "\n" + sound.read_text())
    collection = collect(runs)
    (view,) = views_of(collection, groups_of(collection)[0])
    assert view.curves is not None and set(view.curves["step"]) >= {"resnet50"}
    assert view.curves["epoch"].max() == 12


def test_files_of_other_kinds_do_not_hang(runs: Path) -> None:
    for step, name in (("layer_norm", "result.json"), ("kernel_7", "error.json")):
        folder = runs / f"{step}-micro-s0-0123456789ab"
        folder.mkdir()
        os.mkfifo(folder / name)
    os.mkfifo(runs / "kernel_7-micro-s0-0123456789ab" / "config.yaml")
    (runs / "studies").mkdir()
    os.mkfifo(runs / "studies" / "a.json")
    found = collect(runs)
    assert len(found.runs) == len(GOOD)
    assert {item.state for item in found.skipped} == {"damaged", "half done"}


def test_a_folder_whose_name_is_no_text_is_named(runs: Path) -> None:
    folder = factory.write(runs, factory.record("layer_norm"))
    os.rename(folder, os.fsencode(runs) + b"/\xff\x1b[2J-micro-s0-0123456789ab")
    found = collect(runs, runs.parent / "cache.sqlite")
    assert len(found.runs) == len(GOOD)
    (left_out,) = found.skipped
    assert left_out.path == "\\udcff\\x1b[2J-micro-s0-0123456789ab" and "UTF-8" in left_out.why
    assert set(collect(runs, runs.parent / "cache.sqlite").runs["label"]) == set(GOOD)


NASTY = "\x1b[2J$x^{$ =1|`<script>alert(1)</script>]( \u202e"


def test_text_of_records_is_text_wherever_it_is_shown(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {"label": f"={NASTY}", "device": NASTY, "study": NASTY}
    for number, record in enumerate((factory.record("layer_norm"), factory.record(None, changes=("gelu",)))):
        folder = runs / f"x-micro-s{number}-{record['run_id'][:12]}"
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps(record | other))
        other |= {"changes": [NASTY], "step": None, "regime": NASTY}
    failed = runs / "gelu-micro-s7-0123456789ab"
    failed.mkdir()
    (failed / "error.json").write_text(json.dumps({"type": "E", "message": f"={NASTY}"}))
    out = runs.parent / "out"
    assert main([str(runs), "--out", str(out), "--formats", "svg", "--no-cache"]) == 0
    printed = capsys.readouterr()
    texts = [path.read_text() for path in out.glob("*.*") if path.suffix in (".csv", ".md", ".tex", ".html")]
    assert not any(UNSEEN.search(text) for text in (printed.out, printed.err, *texts))
    assert (out / "report.html").read_text().count("<script") == 1
    rows = list(csv.reader(io.StringIO((out / "runs.csv").read_text())))
    assert any(cell.startswith("'=\\x1b[2J$x^{$") for row in rows for cell in row)
    assert not any(cell.startswith("=") for row in rows for cell in row)


def test_a_group_of_any_name_stays_below_the_answer(runs: Path) -> None:
    factory.write(runs, factory.record("gelu", data="../../x", budget="/etc"))
    out = runs.parent / "deep" / "out"
    assert main([str(runs), "--out", str(out), "--formats", "svg", "--no-cache"]) == 0
    assert {path.name for path in runs.parent.iterdir()} == {"runs", "deep"}
    assert (out / "micro-.._.._x-_etc" / "report.html").is_file()
    assert 'href="micro-.._.._x-_etc/report.html"' in (out / "report.html").read_text()


def test_a_dollar_in_a_figure_is_a_dollar(tmp_path: Path) -> None:
    @theme.styled
    def draw(size: str) -> Figure:
        fig = theme.figure(size, 5)
        axes = fig.subplots()
        axes.set_yticks([0], ["$x^{$ and $"])
        axes.set_title("$a_{$")
        theme.note(fig, "$\\frac{", size)
        return fig

    (path,) = theme.save(draw(size="page"), tmp_path / "figure", ("svg",))
    assert path.stat().st_size > 1000


def test_a_page_shows_text_and_takes_none_for_markup() -> None:
    table = Table(["a"], [[("<b>\x1b\udcff", None)]])
    page = render(
        title="<t>",
        subtitle="",
        summary=["\u202e"],
        sections=[Section("s", "S", tables=[table], details=[("d", "a\nb")])],
    )
    assert "&lt;b&gt;\\x1b\\udcff" in page and "\\u202e" in page and "<pre>a\nb</pre>" in page


def test_a_cell_of_a_document_stays_a_cell() -> None:
    table = Table(["a", "b"], [[("x|<!-- s:end -->", None), ("run `x|y`", None)]], code=(1,))
    text = document.markdown_of(Section("s", "S", words=["<b>"], tables=[table]))
    assert "<!--" not in text and "- &lt;b>" in text
    assert "| x\\|&lt;!-- s:end --> | `` run `x\\|y` `` |" in text


def test_numbers_of_a_csv_stay_numbers() -> None:
    record = Skipped("-x", "failed", "+1", seed=-3)
    row = next(csv.DictReader(io.StringIO(tables.skipped_csv([record]))))
    assert (row["path"], row["why"], row["seed"]) == ("'-x", "'+1", "-3")


def test_commands_are_quoted_for_a_shell() -> None:
    plan = {"jobs": [["+step=gelu", "data.name=o'b $(x)", "\x1b"]], "runs": [{"run_id": "a"}]}
    (command,) = commands_in([plan]).values()
    assert command.endswith("+step=gelu 'data.name=o'\"'\"'b $(x)' '\\x1b'")


@pytest.mark.parametrize("place", ["file", "file/below", "x" * 300, "full"])
def test_an_answer_that_cannot_be_written_is_one_line(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    if place == "full":

        def refuse(*arguments: object, **named: object) -> None:
            raise OSError(28, "No space left on device", "report.html")

        monkeypatch.setattr(Path, "write_text", refuse)
    code = quietly(lambda: main(["paper", "--out", str(tmp_path / place), "--formats", "svg"]))
    said = capsys.readouterr().err
    assert code == 5 and said.startswith("error: cannot write ") and said.count("\n") == 1


def test_a_ladder_of_which_only_the_first_recipe_was_trained_is_shown(runs: Path) -> None:
    factory.write(runs, factory.record("resnet50", data="other"))
    collection = collect(runs)
    assert len(views_of(collection, groups_of(collection)[0])) == 2
