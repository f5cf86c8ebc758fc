"""Text between a pair of markers in a document, so that generated tables live inside hand-written pages."""

import re
from pathlib import Path

from roadmap.errors import UserError


def between(text: str, name: str) -> str:
    """What stands between `<!-- name:begin -->` and `<!-- name:end -->`.

    Raises:
        UserError: the pair of markers is not there exactly once.
    """
    return _find(text, name)[2]


def replaced(text: str, name: str, content: str) -> str:
    """The text with `content` between that pair of markers.

    Raises:
        UserError: the pair of markers is not there exactly once.
    """
    match = _find(text, name)
    return text[: match.start(2)] + f"\n{content}\n" + text[match.end(2) :]


def names_in(text: str) -> list[str]:
    """The names of the markers in a text, in the order in which they stand there."""
    return re.findall(r"<!-- ([\w-]+):begin -->", text)


def update_file(path: Path, contents: dict[str, str]) -> None:
    """Replace what stands between each named pair of markers in a file."""
    text = path.read_text()
    for name, content in contents.items():
        text = replaced(text, name, content)
    path.write_text(text)


def _find(text: str, name: str) -> re.Match[str]:
    found = list(re.finditer(rf"(<!-- {name}:begin -->)(.*?)<!-- {name}:end -->", text, re.DOTALL))
    if len(found) != 1:
        raise UserError(f"the markers <!-- {name}:begin --> and <!-- {name}:end --> must stand there exactly once")
    return found[0]
