"""The numbers of a hand-written page: what the report says, between the markers of a Markdown file.

`<!-- NAME:begin -->` and `<!-- NAME:end -->` enclose one section of the report (its id) or its `summary`.
"""

from collections.abc import Sequence
from pathlib import Path

from analysis.page import Section, Table
from roadmap.errors import UserError
from roadmap.escape import markdown, markdown_code
from roadmap.show.markers import names_in, update_file

SUMMARY = "summary"


def update_document(path: Path, summary: Sequence[str], sections: Sequence[Section]) -> None:
    """Write the summary and the sections between those markers of a file that name them.

    Raises:
        UserError: the file cannot be read, or has a marker that names no section of this report.
    """
    contents = {SUMMARY: _bullets(summary)} | {section.id: markdown_of(section) for section in sections}
    try:
        wanted = names_in(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    unknown = [name for name in wanted if name not in contents]
    if unknown:
        raise UserError(f"{path}: the marker {unknown[0]} names no section of this report: {', '.join(contents)}")
    update_file(path, {name: contents[name] for name in wanted})


def markdown_of(section: Section) -> str:
    """Words as a list, then the tables, then the small print."""
    parts = [_bullets(section.words), *(_table(table) for table in section.tables), *map(markdown, section.notes)]
    return "\n\n".join(part for part in parts if part)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {markdown(line)}" for line in lines)


def _table(table: Table) -> str:
    def cell(text: str, column: int) -> str:
        return markdown_code(text) if column in table.code else markdown(text)

    left = {0, *table.text, *table.code, *table.wrap}
    lines = [
        "| " + " | ".join(table.heads) + " |",
        "|" + "".join("---|" if i in left else "---:|" for i in range(len(table.heads))),
        *("| " + " | ".join(cell(text, i) for i, (text, _) in enumerate(row)) + " |" for row in table.rows),
    ]
    return "\n".join([*([f"{table.title[0].upper()}{table.title[1:]}:\n"] if table.title else []), *lines])
