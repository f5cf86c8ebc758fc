"""Printed tables hold the ladder's numbers in CSV, Markdown and LaTeX."""

import csv
import io
import re
import shutil
import subprocess

import pytest

from analysis import report, tables
from analysis.collect import collect
from analysis.ladder import paper_ladder
from tests.analysis import factory
from tests.analysis.test_ladder import NAMES, PUBLISHED, ladder_from


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    records = [r for r in factory.ladder(PUBLISHED.get) if r["step"] != "gelu"]
    return ladder_from(tmp_path_factory.mktemp("runs"), records)


def test_csv_has_a_row_per_step_and_every_number(ladder):
    rows = list(csv.DictReader(io.StringIO(tables.csv_of(ladder))))
    assert [row["step"] for row in rows] == NAMES
    width = rows[NAMES.index("width")]
    assert float(width["top1"]) == pytest.approx(ladder.row("width")["top1"], abs=1e-3)
    assert float(width["gain_low"]) < float(width["gain"]) < float(width["gain_high"])
    assert width["verdict"] == "gain"
    assert rows[NAMES.index("gelu")]["top1"] == ""


def test_markdown(ladder):
    lines = tables.markdown_of(ladder).splitlines()
    heads = [head.strip() for head in lines[0].strip("|").split("|")]
    assert heads == [column.head for column in tables.COLUMNS]
    assert len(lines) == 19
    assert {line.count("|") for line in lines} == {len(heads) + 1}
    assert re.search(r"\| \d\d\.\d\d ± \d\.\d\d \(3\) \|", lines[3])
    assert "missing" in lines[2 + NAMES.index("gelu")]


def test_papers_own_table_leaves_out_what_is_zero_by_definition():
    heads = [column.head for column in tables.columns_of(paper_ladder("tiny"))]
    assert heads == ["step", "GMACs", "params (M)", "top-1 (n)", "gain [95 % CI, all at once]", "verdict"]
    assert "prints other values" in tables.markdown_of(paper_ladder("tiny"))


def test_latex_is_balanced_and_escaped(ladder):
    text = tables.latex_of(ladder)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 18
    assert {line.count(" & ") for line in rows} == {len(tables.COLUMNS) - 1}
    assert r"95 \% CI" in text and "``patchify''" in text and r"$\rightarrow$" in text
    assert not re.search(r"(?<!\\)[%#_](?![^\n]*booktabs)", "\n".join(rows))
    assert all(text.count(rule) == 1 for rule in (r"\toprule", r"\bottomrule", r"\begin{tabular}", r"\end{tabular}"))


def test_latex_compiles(ladder, tmp_path):
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("no pdflatex")
    body = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + tables.latex_of(ladder) + r"\end{document}"
    (tmp_path / "a.tex").write_text(body)
    subprocess.run([compiler, "-halt-on-error", "a.tex"], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize(
    "value, decimals, text",
    [(80.35, 1, "80.4"), (4.15, 1, "4.2"), (0.0716, 2, "0.072"), (0.09, 2, "0.090"), (-0.25, 1, "-0.3")],
)
def test_numbers_round_as_the_paper_does(value, decimals, text):
    assert tables.number(value, decimals) == text


def test_a_diverged_run_is_listed_without_its_last_top1(tmp_path):
    records = [factory.record("gelu", 0, 81.25), factory.record("gelu", 1, 10.0, status="diverged")]
    table = report._runs_table(collect(factory.write_all(tmp_path, records)).runs)
    assert [(row[2][0], row[3][0]) for row in table.rows] == [("finished", "81.25"), ("diverged", "–")]
