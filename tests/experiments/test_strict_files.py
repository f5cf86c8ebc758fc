"""JSON and YAML that others wrote: bounded, and one line where they are something else."""

import json
import os
from pathlib import Path

import pytest

from experiments.strict_json import DEPTH, LARGEST_INT, number, parse, read_object
from experiments.strict_yaml import read_mapping


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


REFUSED = {
    "integer": (b'{"params": 1' + b"0" * 400 + b"}", "64 bits"),
    "integer of thousands of digits": (b"9" * 5000, "64 bits"),
    "just beyond 64 bits": (str(LARGEST_INT + 1).encode(), "64 bits"),
    "float": (b"1e999", "no float"),
    "NaN": (b"NaN", "not JSON"),
    "key twice": (b'{"a": 1, "a": 2}', "twice"),
    "surrogate": (b'{"a": "\\ud800"}', "surrogate"),
    "surrogate in a key": (b'{"\\udcff": 1}', "surrogate"),
    "deep": (nested(DEPTH + 1), "deeply"),
    "deeper than the stack": (nested(100_000), "deeply"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_values_that_code_behind_it_cannot_hold_are_refused(name: str) -> None:
    text, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_what_records_hold_is_read() -> None:
    value = {"a": [LARGEST_INT, -LARGEST_INT, 1e300, "\U0001f600 é"], "wide": [[1]] * 100}
    assert parse(json.dumps(value).encode()) == value
    assert parse(nested(DEPTH - 1)) is not None


def test_a_number_is_a_number_within_its_bounds() -> None:
    record = {"int": 3, "float": 0.5, "text": "3", "truth": True, "null": None, "list": [3]}
    assert [number(record, key) for key in (*record, "nothing")] == [3, 0.5, None, None, None, None, None]
    assert (number(record, "int", 0, 2), number(record, "int", 4)) == (None, None)


YAML = {
    "reference": (b"a: &a [1]\nb: *a\n", "refers"),
    "reference to itself": (b"a: &a [*a]\n", "refers"),
    "deep": (b"- " * 1000 + b"a", "deeply"),
    "deep enough to end the C loader": (b"[" * 500_000, "deeply"),
    "code": (b"!!python/object/apply:os.system ['true']", "could not determine a constructor"),
    "no date": (b"a: 2001-99-99", "month"),
    "list": (b"[1]", "list"),
    "nothing": (b"", "NoneType"),
    "no text": (b"\xff\xfe\xff", "codec"),
    "half a file": (b"a: [1, ", "parsing"),
}


@pytest.mark.parametrize("name", YAML)
def test_a_config_is_plain_keys_and_values(name: str, tmp_path: Path) -> None:
    text, reason = YAML[name]
    path = tmp_path / "config.yaml"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=reason) as caught:
        read_mapping(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_recorded_configs_are_read(repo_root: Path) -> None:
    configs = sorted(repo_root.glob("results/*/*/config.yaml"))
    assert configs and all(read_mapping(path)["recipe"]["epochs"] for path in configs)


@pytest.mark.parametrize("read", [read_object, read_mapping])
@pytest.mark.parametrize("kind", ["pipe", "folder", "nothing", "device", "too large"])
def test_only_a_file_is_read(read: object, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "too large":
        with open(path, "wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(ValueError, match="file: "):
        read(path)  # type: ignore[operator]
