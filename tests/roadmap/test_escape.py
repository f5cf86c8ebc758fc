"""Text as each target must be given it."""

import csv
import io

import pytest

from roadmap.escape import csv_cell, latex, markdown, markdown_code, visible


def test_what_cannot_be_seen_is_shown_as_a_number() -> None:
    assert visible("\x1b[31mred\x07\n") == "\\x1b[31mred\\x07\\n"
    assert visible("a\u202eb\u2066c\u2028") == "a\\u202eb\\u2066c\\u2028"
    assert visible("\udcff\ud800") == "\\udcff\\ud800"
    assert visible("名前 é – ± 0.1") == "名前 é – ± 0.1"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+2", "@SUM(A1)", '=HYPERLINK("x")', " =1"])
def test_a_spreadsheet_computes_nothing(text: str) -> None:
    assert csv_cell(text) == f"'{text}"
    assert csv_cell("\t=1") == "\\t=1"
    assert csv_cell("gelu") == "gelu"


def test_a_cell_of_csv_is_one_line() -> None:
    out = io.StringIO()
    csv.writer(out).writerow([csv_cell('a"b\nc,d\re')])
    assert next(csv.reader(io.StringIO(out.getvalue()))) == ['a"b\\nc,d\\re']


def test_markdown_stays_in_its_cell() -> None:
    assert markdown("a|b") == r"a\|b"
    assert markdown("a\\|b") == r"a\\\|b"  # a backslash of its own does not free the bar
    assert markdown("`x`") == r"\`x\`"
    assert markdown("<!-- ladder:end --><b>&amp;") == "&lt;!-- ladder:end -->&lt;b>&amp;amp;"
    assert markdown("![x](http://a)") == r"![x]\(http://a)"
    assert markdown("+0.31 [−0.05, +0.67]") == "+0.31 [−0.05, +0.67]"


def test_code_in_markdown_ends_where_it_should() -> None:
    assert markdown_code("run.py a=1") == "`run.py a=1`"
    assert markdown_code("a`b``c") == "```a`b``c```"
    assert markdown_code("`a`") == "`` `a` ``"
    assert markdown_code("a|b") == r"`a\|b`"


def test_nothing_is_a_command_of_latex() -> None:
    assert latex(r"\input{x}") == r"\textbackslash{}input\{x\}"
    assert latex("$x^{$ ~") == r"\$x\textasciicircum{}\{\$ \textasciitilde{}"
    assert latex('"a_b" → 5 % & #') == r"``a\_b'' $\rightarrow$ 5 \% \& \#"
