"""Text of files and file names as each target must be given it: one function per target, used wherever it is shown.

Names of runs, changes and classes, error messages and settings are read from files that others may have written. None
of them may move a terminal's cursor, become a spreadsheet's formula, or be taken for markup.
"""

import re

# Control characters, marks that turn the direction of writing or show nothing, line separators, halves of surrogate
# pairs (how Python keeps the bytes of a file name that is no UTF-8).
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet computes
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "→": r"$\rightarrow$",
    "−": "$-$",
    "±": r"$\pm$",
    "–": "--",
    "…": r"\dots",
}


def visible(text: str) -> str:
    """For a terminal, a page, a figure: one line, with what cannot be seen as a backslash and a number."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def csv_cell(text: str) -> str:
    """For a cell of a CSV file that a spreadsheet may open; numbers are no text and stay what they are."""
    shown = visible(text)
    return f"'{shown}" if shown.lstrip(" ").startswith(_FORMULA) else shown


def markdown(text: str) -> str:
    """For running text and cells of Markdown: no HTML, code, link, picture or end of a cell."""
    shown = re.sub(r"([\\|`])", r"\\\1", visible(text))
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace("](", r"]\(")


def markdown_code(text: str) -> str:
    """For a cell of Markdown, as code: in more backticks than it holds itself."""
    shown = visible(text).replace("|", r"\|")
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    room = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{room}{shown}{room}{fence}"


def latex(text: str) -> str:
    """For LaTeX: nothing is a command, straight quotes in pairs become typographic ones."""
    first, *rest = visible(text).split('"')
    quoted = first + "".join(("``" if i % 2 == 0 else "''") + part for i, part in enumerate(rest))
    return "".join(_LATEX.get(letter, letter) for letter in quoted)
