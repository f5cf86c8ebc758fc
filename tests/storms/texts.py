"""Hostile values, files and names for `tests.storms.records`: what a record, a study or a config may come to hold."""

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEXTS = (
    "[/red]",
    "[bold red]x[/bold red][link=http://example.org]y[/link]",
    "\x1b[2J\x1b]0;title\x07\x1b[31mred",
    "a\u202egnp.exe\u2066",
    "line\nline\r\ttab\u2028\u2029",
    '=HYPERLINK("http://example.org";"click")',
    "+1+cmd|' /C calc'!A0",
    "@SUM(1)",
    "-2+3",
    "\t=1+1",
    "$x^{$",
    "$\\frac{1}{0}$ \\write18{x} \\input{/etc/passwd} %",
    "a|b`c``d|](http://example.org)![x](y)",
    "</script><script>alert(1)</script><!-- ladder:end -->",
    "'; DROP TABLE rows; --",
    "../../x",
    "/etc/passwd",
    "o'brien, a=b [c] $x ${y} %s {0}",
    "名前" * 40,
    "x" * 100_000,
    "",
    " ",
    "\x00",
    "\ud800",
    "\udcff",
    "NaN",
)
NUMBERS = (10**400, 2**70, -(2**70), 2**63, -1, 0, 1e308, -1e308, 5e-324, 1e16, 2**53, True, 10**30)
SHAPES: tuple[Any, ...] = (
    None,
    [],
    {},
    [[]],
    [None, 1, "a"],
    {"name": {"name": []}},
    {"a": 1},
    [{"a": 1}],
    "text",
    False,
    {"": ""},
    [1] * 5000,
)
RAW = (
    b"",
    b"\x00" * 100,
    b"\xff\xfe\x00",
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"[" * 300 + b"]" * 300,
    b'{"a": NaN}',
    b'{"a": 1e999}',
    b'{"a": 1, "a": 2}',
    b'{"a": ' + b"9" * 5000 + b"}",
    b"null\n",
    b'"text"\n',
    b"[1, 2]\n",
    b"{}\n",
    b"3\n4\n",
    b"-" * 2000,
    b"<html>",
)
YAML = (
    b"a: &a [x]\nrecipe: {epochs: *a}\n",
    b"&a [*a]\n",
    b"a: &a [1,1]\nb: &b [*a,*a]\nc: &c [*b,*b]\nrecipe: {epochs: 3, x: *c}\n",
    b"!!python/object/apply:os.system ['true']\n",
    b"- " * 50_000 + b"a\n",
    b"? " * 2000 + b"a\n",
    b"recipe: {epochs: 2001-99-99}\n",
    b"recipe: {epochs: .inf}\n",
    b"recipe: {epochs: 1" + b"0" * 400 + b"}\n",
    b"recipe: [epochs]\n",
    b"step: [a]\nchanges: 3\nrecipe: {name: {}}\nbudget: {name: []}\ndata: {name: 3}\n",
    b'budget: {name: "\\e[2J"}\ndata: {name: "$x^{$"}\nstep: \'=1+1\'\n',
    b"a\n: b: c\n",
)
NAMES = (
    b"[red]x[/blue]-micro-s0-0123456789ab",
    b"\x1b[2Jx-micro-s1-0123456789ab",
    b"a\nb-micro-s2-0123456789ab",
    b"\xff\xfe-micro-s3-0123456789ab",
    b"=1+1-micro-s4-0123456789ab",
    b"$x^{$-micro-s5-0123456789ab",
    b"o'brien, a=b [c] $x %s-micro-s6-0123456789ab",
    b"<script>x-micro-s7-0123456789ab",
    "名前 \u202ex".encode() + b"-micro-s8-0123456789ab",
    b"x" * 230 + b"-micro-s9-0123456789ab",
    b"gelu-micro-s99999999999999999999-0123456789ab",
    b"a|b`c-micro-s0-0123456789ab",
)


@dataclass(frozen=True)
class Place:
    """A folder of runs to plant something in.

    Attributes:
        runs: the folder.
        sealed: a finished run in it.
        half: a run in it that failed.
        study: a frozen study in it.
        random: what chooses.
    """

    runs: Path
    sealed: Path
    half: Path
    study: Path
    random: random.Random

    def text(self) -> str:
        """A hostile text."""
        return self.random.choice(TEXTS)

    def value(self) -> Any:
        """A hostile value of any type."""
        return self.random.choice((self.random.choice(TEXTS), self.random.choice(NUMBERS), self.random.choice(SHAPES)))


Plant = Callable[[Place], None]


def bent(value: Any, place: Place) -> Any:
    """The value with one of its parts, at any depth, replaced, removed or joined by another."""
    if isinstance(value, dict) and value and place.random.random() < 0.9:
        key = place.random.choice(sorted(value))
        how = place.random.random()
        if how < 0.1:
            return {name: item for name, item in value.items() if name != key}
        if how < 0.15:
            return value | {place.text(): place.value()}
        return value | {key: bent(value[key], place)}
    if isinstance(value, list) and value and place.random.random() < 0.7:
        at = place.random.randrange(len(value))
        return [bent(item, place) if i == at else item for i, item in enumerate(value)]
    return place.text() if isinstance(value, str) and place.random.random() < 0.6 else place.value()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _bent_json(path: Callable[[Place], Path]) -> Plant:
    def plant(place: Place) -> None:
        file = path(place)
        value = json.loads(file.read_bytes())
        for _ in range(place.random.choice((1, 1, 2, 5))):
            value = bent(value, place)
        file.write_bytes(_json(value))

    return plant


def _bent_lines(path: Callable[[Place], Path]) -> Plant:
    def plant(place: Place) -> None:
        file = path(place)
        lines = [json.loads(line) for line in file.read_bytes().splitlines()]
        at = place.random.choice((0, len(lines) - 1))
        lines[at] = bent(lines[at], place)
        file.write_bytes(b"".join(_json(line) + b"\n" for line in lines))

    return plant


def _raw(path: Callable[[Place], Path], contents: tuple[bytes, ...]) -> Plant:
    return lambda place: _put(path(place), place.random.choice(contents))


def _put(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _no_file(path: Callable[[Place], Path]) -> Plant:
    def plant(place: Place) -> None:
        file = path(place)
        file.unlink(missing_ok=True)
        kind = place.random.choice(("pipe", "folder", "loop", "nowhere", "endless", "big"))
        if kind == "pipe":
            os.mkfifo(file)
        elif kind == "folder":
            file.mkdir()
        elif kind == "big":
            with open(file, "wb") as out:
                out.truncate(1 << 40)
        else:
            file.symlink_to({"loop": file.name, "nowhere": "nowhere", "endless": "/dev/zero"}[kind])

    return plant


def _labelled_elsewhere(place: Place) -> None:
    """A study whose runs are all consistent, but for the names that lead to their folders."""
    study = json.loads(place.study.read_bytes())
    for run in study["runs"]:
        run["settings"]["label"] = run["label"] = place.random.choice(("../../x", "/etc/x", "..", "a/b", "x" * 300))
    place.study.write_bytes(_json(study))


def _named(place: Place) -> None:
    """A run, sealed or half done, in a folder that is called otherwise."""
    run = place.random.choice((place.sealed, place.half))
    os.rename(os.fsencode(run), os.path.join(os.fsencode(place.runs), place.random.choice(NAMES)))


def _error_text(place: Place) -> None:
    record = {"type": place.text(), "message": place.text(), "exit_code": 1, "machine": place.random.random() < 0.5}
    (place.half / "error.json").write_bytes(_json(record))


def _texts_of_a_record(place: Place) -> None:
    """A record that is valid, but for its texts: they are shown in tables, figures and pages."""
    file = place.sealed / "result.json"
    record = json.loads(file.read_bytes())
    record |= {"label": place.text(), "device": place.text(), "study": place.text()}
    for key in place.random.sample(("data", "budget", "recipe"), place.random.randrange(3)):
        record[key] = record[key] | {"name": place.text()}
    record["versions"] = record["versions"] | {place.text(): place.text()}
    if place.random.random() < 0.3:
        record |= {"regime": place.text(), "changes": [place.text()], "step": None}
    file.write_bytes(_json(record))


FILES: dict[str, Callable[[Place], Path]] = {
    "result.json": lambda place: place.sealed / "result.json",
    "metrics.jsonl": lambda place: place.sealed / "metrics.jsonl",
    "timing.jsonl": lambda place: place.half / "timing.jsonl",
    "error.json": lambda place: place.half / "error.json",
    "config.yaml": lambda place: place.half / "config.yaml",
    ".claim": lambda place: place.half / ".claim",
    "study": lambda place: place.study,
}
KINDS: dict[str, Plant] = {
    "texts of a record": _texts_of_a_record,
    "name of a folder": _named,
    "message of an error": _error_text,
    "labels of a study": _labelled_elsewhere,
    **{f"{name}: bent": _bent_json(FILES[name]) for name in ("result.json", "error.json", "study", ".claim")},
    **{f"{name}: bent": _bent_lines(FILES[name]) for name in ("metrics.jsonl", "timing.jsonl")},
    **{f"{name}: other bytes": _raw(path, RAW + YAML * (name == "config.yaml")) for name, path in FILES.items()},
    **{f"{name}: no file": _no_file(path) for name, path in FILES.items()},
}
