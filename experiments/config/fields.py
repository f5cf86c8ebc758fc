"""Dataclass fields that carry their own rule: what type a value has and which values are allowed.

`check_fields` enforces the rules, `experiments.config.schema` derives Hydra's schema from the same fields, and the
tests draw random settings from them: a rule is written once. Every error is one line that names the key and what is
allowed.
"""

import dataclasses
import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from experiments.errors import ConfigError

INF = math.inf
RESOLVED = {"resolved": True}


def _is_finite(value: float) -> bool:
    """Whether a float can hold a number, which may be an integer of any length."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`; `open_low` and `open_high` leave out the ends."""

    low: float = -INF
    high: float = INF
    open_low: bool = False
    open_high: bool = False

    def check(self, key: str, value: float) -> None:
        """Raise ConfigError unless `value` lies in the range."""
        low_ok = self.low < value if self.open_low else self.low <= value
        high_ok = value < self.high if self.open_high else value <= self.high
        if not (low_ok and high_ok and _is_finite(value)):
            raise ConfigError(f"{key}={value} must be {self}")

    def __str__(self) -> str:
        low = f"{'above' if self.open_low else 'at least'} {self.low:.12g}" if self.low > -INF else ""
        high = f"{'below' if self.open_high else 'at most'} {self.high:.12g}" if self.high < INF else ""
        return " and ".join(bound for bound in (low, high) if bound) or "a finite number"


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    options: tuple[str | int, ...]

    def check(self, key: str, value: str | int) -> None:
        """Raise ConfigError unless `value` is one of the options."""
        if value not in self.options:
            raise ConfigError(f"{key}={value} is not one of: {', '.join(map(str, self.options))}")


@dataclass(frozen=True)
class Pattern:
    """Strings that match a regular expression as a whole; `meaning` says in words what is allowed."""

    regex: str
    meaning: str
    examples: tuple[str, ...] = ()

    def check(self, key: str, value: str) -> None:
        """Raise ConfigError unless `value` matches."""
        if not re.fullmatch(self.regex, value):
            raise ConfigError(f"{key}={value!r} must be {self.meaning}")


@dataclass(frozen=True)
class Each:
    """Sequences of `length` items (None: any length above 0) that each keep `rule`; `rising` forbids a fall."""

    rule: Range
    length: int | None = None
    rising: bool = False

    def check(self, key: str, value: tuple[float, ...]) -> None:
        """Raise ConfigError unless the length, the order and every item are allowed."""
        shown = f"{key}={list(value)}"
        if not value or (self.length is not None and len(value) != self.length):
            raise ConfigError(f"{shown} must hold {self.length or 'one or more'} numbers")
        for item in value:
            if not (math.isfinite(item)):
                raise ConfigError(f"{shown} must hold finite numbers")
            self.rule.check(shown, item)
        if self.rising and list(value) != sorted(value):
            raise ConfigError(f"{shown} must not fall")


@dataclass(frozen=True)
class Options:
    """Mappings from a name to a number, a truth value, a word or a list of such."""

    def check(self, key: str, value: Mapping[str, Any]) -> None:
        """Raise ConfigError unless all names and values are plain."""
        for name, given in value.items():
            for item in given if isinstance(given, list | tuple) else [given]:
                known = isinstance(item, bool | int | float | str | None)
                if not known or (isinstance(item, int | float) and not _is_finite(item)):
                    raise ConfigError(f"{key}.{name}={given} must be a finite number, a truth value, a word or a list")


Rule = Range | Choice | Pattern | Each | Options


def ruled(default: Any, rule: Rule) -> Any:
    """A dataclass field whose value keeps `rule` (None is allowed where the annotation says so)."""
    return field(default=default, metadata={"rule": rule})


def later(default: Any, rule: Rule | None = None, *, before: Any) -> Any:
    """A field that is younger than recorded runs, which computed what the value `before` asks for.

    While it has that value it stays out of a run's identity, so that those runs stay known. `before` never changes,
    whatever the default becomes.
    """
    metadata = {"before": before} | ({"rule": rule} if rule else {})
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def before_of(cls: Any) -> dict[str, Any]:
    """The fields of a dataclass that were declared with `later`, each with what was computed before it."""
    return {item.name: item.metadata["before"] for item in dataclasses.fields(cls) if "before" in item.metadata}


def beside_before(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a dataclass's fields, but for those that ask for what was computed before they existed."""
    before = before_of(cls)
    return {key: value for key, value in values.items() if not (key in before and value == before[key])}


def resolved(default: Any, rule: Rule | None = None) -> Any:
    """A dataclass field that is no config key: resolving finds its value out. A frozen study's file holds it, too."""
    return field(default=default, metadata=RESOLVED | ({"rule": rule} if rule else {}))


def is_resolved(item: "dataclasses.Field[Any]") -> bool:
    """Whether a dataclass field was declared with `resolved`."""
    return bool(item.metadata.get("resolved"))


def rule_of(item: "dataclasses.Field[Any]") -> Rule | None:
    """The rule of a dataclass field, if it has one."""
    return item.metadata.get("rule")


def is_optional(annotation: Any) -> bool:
    """Whether None is among the values of an annotation."""
    return type(None) in get_args(annotation)


def without_none(annotation: Any) -> Any:
    """`X` of `X | None`; any other annotation as it is."""
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [arg for arg in get_args(annotation) if arg is not type(None)]
        return rest[0] if len(rest) == 1 else annotation
    return annotation


def typed(key: str, value: Any, annotation: Any) -> Any:
    """`value` in the annotated type: ints become floats, lists tuples; ConfigError for anything else."""
    wanted = without_none(annotation)
    if value is None:
        if is_optional(annotation):
            return None
        raise ConfigError(f"{key} must not be null")
    if get_origin(wanted) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{key}={value!r} must be a list")
        return tuple(typed(key, item, get_args(wanted)[0]) for item in value)
    if isinstance(wanted, types.UnionType):
        accepted: Any = get_args(wanted)
    elif dataclasses.is_dataclass(wanted):
        accepted = wanted
    else:
        accepted = (int, float) if wanted is float else get_origin(wanted) or wanted
    if not isinstance(value, accepted) or (isinstance(value, bool) and wanted is not bool):
        name = getattr(wanted, "__name__", str(wanted))
        raise ConfigError(f"{key}={value!r} must be of type {name}")
    if wanted is not float:
        return value
    if not _is_finite(value) and isinstance(value, int):
        raise ConfigError(f"{key} must be a number that a float can hold")
    return float(value)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)  # takes longer than all checks


def check_fields(instance: Any, prefix: str = "") -> None:
    """Bring every field of a frozen dataclass to its annotated type and enforce its rule.

    Raises:
        ConfigError: one line with the key (`prefix` + field name), its value and what is allowed.
    """
    hints = _hints(instance.__class__)
    for item in dataclasses.fields(instance):
        key = prefix + item.name
        value = typed(key, getattr(instance, item.name), hints[item.name])
        object.__setattr__(instance, item.name, value)
        rule = rule_of(item)
        if rule is not None and value is not None:
            rule.check(key, value)
