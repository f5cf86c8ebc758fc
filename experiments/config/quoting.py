"""Values in a command line: quoted for Hydra, then for a shell. What a folder is called must not matter to either."""

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

_PLAIN = re.compile(r"(\.{0,2}/)?[A-Za-z_][A-Za-z0-9_./+-]*")  # and no number
_NOT_TEXT = ("null", "true", "false", "nan", "inf")  # what Hydra takes for a value of another type


def override(key: str, value: str | Path) -> str:
    """`key=value` as Hydra reads it: whatever the text holds, the key gets it unchanged."""
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return f"{key}={text}"
    # OmegaConf fills in ${...}; a backslash keeps it from that, and is doubled where it stands before one
    text = re.sub(r"(\\*)\$\{", lambda found: f"{found[1] * 2}\\${{", text)
    # in Hydra's quotes a backslash is itself unless it stands before a quote, the closing one among them
    text = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + (f"\\{found[2]}" if found[2] else ""), text)
    return f"{key}='{text}'"


def command(words: Iterable[str]) -> str:
    """Words of a command line, quoted for a shell where they need it."""
    return " ".join(map(shlex.quote, words))
