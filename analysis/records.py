"""One run record as one flat row, and the two keys that say which runs may be compared."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from analysis.commands import rebuilt
from experiments.config.fields import beside_before
from experiments.config.settings import Data, Recipe
from roadmap import STEPS, Design, UserError, design_for, step_at
from roadmap.design import BEFORE, flags_asked_by
from roadmap.resolve import without_width

# column -> sqlite type; the order is the order of the table
COLUMNS = {
    "path": "TEXT",  # relative to RUNS
    "run_id": "TEXT",
    "config_id": "TEXT",
    "step": "TEXT",  # None off the ladder
    "changes": "TEXT",  # joined with "+", ladder order
    "study": "TEXT",
    "regime": "TEXT",
    "seed": "INTEGER",
    "recipe": "TEXT",
    "without": "TEXT",  # techniques switched off by name, joined with "+"
    "budget": "TEXT",
    "data": "TEXT",
    "epochs": "REAL",
    "top1": "REAL",
    "top1_best": "REAL",
    "top1_ema": "REAL",
    "loss": "REAL",
    "params": "REAL",
    "gmacs": "REAL",
    "params_1k": "REAL",
    "gmacs_224": "REAL",
    "images_per_second": "REAL",
    "wall_seconds": "REAL",
    "status": "TEXT",
    "device": "TEXT",
    "threads": "REAL",
    "eval_size": "REAL",
    "git_commit": "TEXT",
    "git_dirty": "INTEGER",
    "command": "TEXT",
    "plain": "INTEGER",  # 1: the network is what its set of changes says, no flag was typed
    "matched": "INTEGER",  # 1: that, at a width of its own (match_gmacs): a ladder apart from the others
    "profile": "TEXT",  # hash of what a whole ladder shares: data, budget, image size, precision, stem stride
    "variant": "TEXT",  # hash of what a recipe fixes: recipe, batch, layer scale, init, drop path
    "settings": "TEXT",  # hash of the record's nested settings, see `settings_of`
}
NUMBERS = tuple(name for name, kind in COLUMNS.items() if kind == "REAL")
_SAME_NAME = (
    *("run_id", "config_id", "step", "study", "regime", "seed", "epochs", "top1", "top1_best", "top1_ema", "loss"),
    *("params", "gmacs", "params_1k", "gmacs_224", "images_per_second", "wall_seconds", "status", "device"),
    "threads",
)
_RECIPE_FLAGS = flags_asked_by("recipe")
# of data; where they matter they are in the design and in image_size
_NOT_CONTENT = ("root", "download", "damaged_share", "image_size", "stem_stride")
# A record that is older than one of their fields is like one that asks for what was computed before (`fields.later`).
_SECTIONS = {"design": Design, "recipe": Recipe, "data": Data}
_OPTIONAL = ("batch", "precision", "image_size")


def flatten(path: str, record: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The row (keys of COLUMNS) and the nested settings as canonical JSON of a validated record.

    Raises:
        ValueError: the record contradicts itself or the ladder; one line.
    """
    parts = {name: beside_before(cls, record[name]) for name, cls in _SECTIONS.items()}
    design, recipe, data = parts.values()
    changes = tuple(record["changes"])
    row = {name: record[name] for name in _SAME_NAME}
    whole = _canonical(BEFORE | design)
    exact, any_width = (_is_plain(whole, changes, record["regime"], free) for free in (False, True))
    if row["step"] is not None and (row["step"] != _step_at(changes, recipe["name"]) or not exact):
        raise ValueError(f"it claims step {row['step']}, but its changes, recipe or design are not that step's")
    row["plain"], row["matched"] = int(any_width), int(any_width and not exact)
    if row["matched"]:
        changes = without_width(changes, record["regime"])
        if not recipe.get("without"):  # of a ladder in which every row has its own width
            row["step"] = _step_at_any_width(changes, recipe["name"], record["regime"])
    git = record.get("git") or {}
    settings = {**parts, **{key: record.get(key) for key in ("budget", *_OPTIONAL, "versions")}}
    text = _canonical(settings)
    asked = [design[flag] for flag in _RECIPE_FLAGS if flag in design]
    row |= {
        "path": path,
        "changes": "+".join(changes),
        "recipe": recipe["name"],
        "without": "+".join(recipe.get("without") or ()),
        "budget": record["budget"]["name"],
        "data": data["name"],
        "eval_size": record.get("eval_size") or data.get("eval_images"),
        "git_commit": git.get("commit"),
        "git_dirty": None if git.get("dirty") is None else int(git["dirty"]),
        "command": rebuilt(record),
        "profile": _hash(profile_of(record) + "matched" * row["matched"]),
        "variant": _hash(_canonical([recipe, record.get("batch"), *asked])),
        "settings": _hash(text),
    }
    return row, text


def profile_of(record: Mapping[str, Any]) -> str:
    """Key of what all runs of one ladder share; runs with different keys are never averaged or compared."""
    data = {key: value for key, value in record["data"].items() if key not in _NOT_CONTENT}
    parts = [
        data,
        record["budget"],
        record["design"].get("stem_stride"),
        record.get("image_size"),
        record.get("precision"),
    ]
    return _hash(_canonical(parts))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@cache
def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_step_at = cache(step_at)


@cache
def _step_at_any_width(changes: tuple[str, ...], recipe: str, regime: str) -> str | None:
    """The first step with these changes, those of the width alone aside."""
    found = (s.name for s in STEPS if s.recipe == recipe and without_width(s.changes, regime) == changes)
    return next(found, None)


@cache
def _is_plain(design_json: str, changes: tuple[str, ...], regime: str, width_is_free: bool) -> bool:
    """True if the recorded design is what (regime, changes) resolve to, the recipe's and the data's flags aside."""
    recorded = {key: value for key, value in json.loads(design_json).items() if key != "name"}
    try:
        design = Design(**recorded)
        free = {key: getattr(design, key) for key in (*_RECIPE_FLAGS, "stem_stride")}
        if width_is_free:
            free["width"] = design.width
        return design_for(changes, regime, **free) == design
    except (UserError, TypeError) as error:
        raise ValueError(f"its design is not one of this version: {error}") from None
