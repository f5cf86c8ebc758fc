"""Numbers between the markers of a hand-written page."""

import pytest

from analysis.__main__ import main
from analysis.document import markdown_of, update_document
from analysis.page import Section, Table
from roadmap import UserError
from tests.analysis import factory
from tests.analysis.test_ladder import PUBLISHED

PAGE = "# Mine\n\nkept\n\n<!-- {0}:begin -->\nold\n<!-- {0}:end -->\n\nkept too\n"


def test_a_section_as_markdown():
    table = Table(("a", "b", "c"), [[("x|y", None), ("1", 1.0), ("run", None)]], "what", code=(2,))
    section = Section("s", "S", ["first", "second"], tables=[table], notes=["small print"])
    assert markdown_of(section) == (
        "- first\n- second\n\nWhat:\n\n| a | b | c |\n|---|---:|---|\n| x\\|y | 1 | `run` |\n\nsmall print"
    )


def test_only_what_the_page_names_is_written(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.format("s"))
    update_document(page, ["sum"], [Section("s", "S", ["new"]), Section("t", "T", ["other"])])
    assert page.read_text() == PAGE.format("s").replace("old", "- new")


def test_an_unknown_name_or_a_missing_page_is_one_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.format("typo"))
    with pytest.raises(UserError, match=r"typo names no section of this report: summary, s$"):
        update_document(page, [], [Section("s", "S")])
    assert "old" in page.read_text()
    with pytest.raises(UserError, match="No such file"):
        update_document(tmp_path / "nowhere.md", [], [])


def test_the_command_fills_a_page_the_same_each_time(tmp_path):
    runs = factory.write_all(tmp_path / "runs", factory.ladder(PUBLISHED.get))
    page = tmp_path / "page.md"
    page.write_text("".join(PAGE.format(name) for name in ("summary", "ladder", "gains", "provenance")))
    command = [str(runs), "--out", str(tmp_path / "out"), "--formats", "png", "--document", str(page)]
    assert main(command) == 0
    first = page.read_text()
    assert "| ResNet (original recipe) |" in first
    assert "51 runs in runs/" in first
    assert "old" not in first
    assert main(command) == 0
    assert page.read_text() == first
