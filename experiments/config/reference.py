"""Every key of a run as a table: what it means, which values it takes, its default; docs/settings.md shows it.

The table is read off the dataclasses: names, types, rules and defaults from their fields, meanings from the comments
behind these, so that there is nothing to keep in step.
"""

import dataclasses
import inspect
import tokenize
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any, NamedTuple, get_origin, get_type_hints

from experiments.config.fields import Choice, Each, Pattern, Range, is_optional, is_resolved, rule_of, without_none
from experiments.config.settings import MACHINE_KEYS, SECTIONS, Settings
from roadmap.design import RULES
from roadmap.files import found

# Keys that only lead to settings: choices of files, and what is done to a step's set of changes.
LEADING = {
    "+step": ("a step of a ladder", "a name in conf/step", ""),
    "add": ("changes added to the step's", "a list of names of conf/step", "[]"),
    "drop": ("changes taken out of the step's", "a list of names of conf/step", "[]"),
    "match_gmacs": ("the width is scaled until the network costs this many GMACs", "a number above 0, or null", "null"),
    "+study": ("a ready-made sweep", "a name in conf/study", ""),
    "replan": ("a study's list of runs is made anew", "true or false", "false"),
}
# Keys that take more when typed than they hold once resolved: what they take besides, and their default.
WIDER = {"precision": ("auto", "auto"), "image_size": ("", "that of the data")}
GROUPS = {
    "regime": "how large",
    "recipe": "how it is trained",
    "budget": "how much of the recipe is paid for",
    "roadmap": "the ladder that steps, studies and figures follow",
    "data": "what is learnt",
    "logger": "mirrors of the record, one or a list",
    "launcher": "where the runs of a study go",
}


class Key(NamedTuple):
    """One key: its name as typed, meaning, allowed values, default, and whether another value makes another run."""

    name: str
    meaning: str
    values: str
    default: str
    hashed: bool


def comments_of(cls: type) -> dict[str, str]:
    """The comment behind each field of a dataclass, by the field's name; a field without one is left out."""
    meanings: dict[str, str] = {}
    name = ""
    for token in tokenize.generate_tokens(StringIO(inspect.getsource(cls)).readline):
        if token.type == tokenize.NAME and token.start[1] == 4:  # the first word of a field or a method
            name = token.string if token.line.startswith(f"    {token.string}: ") else ""
        elif token.type == tokenize.COMMENT and name and not token.line.lstrip().startswith("#"):
            meanings[name] = token.string.lstrip("# ")
    return meanings


def keys(section: str) -> list[Key]:
    """The keys of a section ("" for the top level) in the order of their declaration."""
    cls = SECTIONS[section] if section else Settings
    meanings, hints = comments_of(cls), get_type_hints(cls)
    return [
        _key(f"{section}.{item.name}" if section else item.name, meanings[item.name], hints[item.name], item)
        for item in dataclasses.fields(cls)
        if not is_resolved(item) and not dataclasses.is_dataclass(hints[item.name])
    ]


def _key(name: str, meaning: str, annotation: Any, item: "dataclasses.Field[Any]") -> Key:
    in_design = name.startswith("design.")
    values = _allowed(RULES[item.name].allowed) if in_design else _values(annotation, rule_of(item))
    more, default = WIDER.get(name, ("", item.default_factory() if callable(item.default_factory) else item.default))
    values = ", ".join(filter(None, (more, values)))
    hashed = name not in MACHINE_KEYS and name.partition(".")[0] not in MACHINE_KEYS
    return Key(name, meaning, values, _shown(default), hashed)


def _allowed(refusal: str) -> str:
    """What a design's rule allows, from the words with which it refuses."""
    words = refusal.removeprefix("is not one of: ").removeprefix("must be ")
    return "true or false" if words == "True, False" else words


def _values(annotation: Any, rule: Any) -> str:
    """What a field may be, in words."""
    kind = without_none(annotation)
    if isinstance(rule, Choice):
        words = ", ".join(map(str, rule.options))
    elif isinstance(rule, Pattern):
        words = rule.meaning.removesuffix(", or null")
    elif isinstance(rule, Each):
        words = f"{rule.length or 'a list of'} numbers {rule.rule}"
    elif isinstance(rule, Range):
        words = f"{'a whole' if kind is int else 'a'} number {rule}"
    elif get_origin(kind) is tuple:
        words = "a list of names"
    else:
        words = {bool: "true or false", str: "text"}.get(kind, "a mapping: {NAME: VALUE}")
    return f"{words}, or null" if is_optional(annotation) else words


def _shown(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_shown, value))}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return "{}" if value == {} else str(value)


def tables() -> dict[str, str]:
    """The tables of docs/settings.md in Markdown, by the name of their place there."""
    leading = [Key(name, *words, hashed=False) for name, words in LEADING.items()]
    groups = [(f"`{name}=`", meaning, ", ".join(sorted(found(name)))) for name, meaning in GROUPS.items()]
    sections = {section: _rows(keys(section)) for section in SECTIONS}
    head = ("key", "meaning", "values", "default", "another run")
    return {
        "groups": _table(("group", "meaning", "files"), groups),
        "sets": _table(head[:-1], [row[:-1] for row in _rows(leading)]),
        "run": _table(head, _rows(keys(""))),
    } | {section: _table(head, rows) for section, rows in sections.items()}


def _rows(listed: Iterable[Key]) -> list[tuple[str, ...]]:
    return [
        (f"`{key.name}`", key.meaning, key.values, f"`{key.default}`" if key.default else "", "yes" * key.hashed)
        for key in listed
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
