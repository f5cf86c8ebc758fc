"""One run record as one flat row, the two keys that say which runs may be compared, and the step that a run is at."""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, get_type_hints

import pandas as pd

from analysis.commands import rebuilt
from analysis.gains import DIVERGED
from experiments.config.fields import before_of, typed
from experiments.config.identity import RECORDED
from experiments.store.origin import changes as changes_of
from experiments.strict_json import number
from roadmap import Design, UserError, design_for
from roadmap.changes import FILES
from roadmap.design import flags_asked_by
from roadmap.escape import visible
from roadmap.regimes import REGIMES
from roadmap.resolve import idle_in, label_of, steps_at
from roadmap.steps import DEFAULT, ROADMAPS, Roadmap, in_order

# column -> sqlite type; the order is the order of the table
COLUMNS = {
    "path": "TEXT",  # relative to RUNS
    "run_id": "TEXT",
    "config_id": "TEXT",
    "label": "TEXT",
    "step": "TEXT",  # of the chosen roadmap (`located`); None off the ladder
    "changes": "TEXT",  # joined with "+", ladder order, without the idle ones
    "idle": "TEXT",  # changes to which data, regime, width or typed keys leave nothing to do, joined with "+"
    "unknown": "TEXT",  # changes, or a regime, of which there is no file here, joined with "+"
    "study": "TEXT",
    "regime": "TEXT",
    "seed": "INTEGER",
    "recipe": "TEXT",
    "without": "TEXT",  # techniques switched off by name, joined with "+"
    "budget": "TEXT",
    "data": "TEXT",
    "epochs": "REAL",
    "top1": "REAL",  # the headline: of the averaged weights where a change asked for them
    "averaged": "INTEGER",  # 1: it is that of the averaged weights
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
    "starts": "REAL",  # how many times the run was started; None where it was not recorded
    "mixed": "TEXT",  # from which step on it went on with other versions, threads, device, ...; "" where it did not
    "git_commit": "TEXT",
    "git_dirty": "INTEGER",
    "command": "TEXT",
    "plain": "INTEGER",  # 1: the network is what its set of changes says, no flag was typed
    "matched": "INTEGER",  # 1: that, at a width of its own (match_gmacs): a ladder apart from the others
    "profile": "TEXT",  # hash of what a whole ladder shares: data, budget, image size, precision, stem stride
    "variant": "TEXT",  # hash of what a recipe fixes without the changes: recipe, batch, layer scale, init, drop path
    "settings": "TEXT",  # hash of the record's nested settings, see `settings_of`
}
LISTS = ("changes", "idle", "unknown", "without", "command")  # columns that hold many names
LONGEST_PATH, MOST_LETTERS, LARGEST = 1024, 8192, 1e30  # of a text, of one that lists, of a number
_TYPES: dict[str, tuple[type, ...]] = {"TEXT": (str,), "INTEGER": (int,), "REAL": (int, float)}
NUMBERS = tuple(name for name, kind in COLUMNS.items() if kind == "REAL")
_SAME_NAME = (
    *("run_id", "config_id", "step", "study", "regime", "seed", "epochs", "top1", "top1_best", "top1_ema", "loss"),
    *("params", "gmacs", "params_1k", "gmacs_224", "images_per_second", "wall_seconds", "status", "device"),
    "threads",
)
_RECIPE_FLAGS = flags_asked_by("recipe")
# of data; where they matter they are in the design and in image_size
_NOT_CONTENT = ("root", "download", "damaged_share", "image_size", "stem_stride")
_OPTIONAL = ("precision", "image_size", "replaced")


def flatten(path: str, record: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The row (keys of COLUMNS) and the nested settings as canonical JSON of a validated record.

    It is the same whatever roadmap is chosen: the column `step` holds what the record claims until `located` decides.

    Raises:
        ValueError: the record contradicts itself or the roadmap that it names; one line.
    """
    design, recipe, data, regime = record["design"], record["recipe"], record["data"], record["regime"]
    changes, idle = tuple(record["changes"]), set(record.get("idle") or ())
    row = {name: record[name] for name in _SAME_NAME}
    unknown = [name for name in changes if name not in FILES] + [regime] * (regime not in REGIMES)
    exact, any_width = (not unknown and _is_plain(_canonical(design), changes, regime, free) for free in (False, True))
    if not unknown:
        _check_claim(record["step"], changes, recipe["name"], idle | idle_in(regime), exact)
        idle |= idle_in(regime)
    row["plain"], row["matched"] = int(any_width), int(any_width and not exact)
    if row["matched"]:
        idle |= _of_the_width(regime)
    if averaged := "recipe.ema" in (record.get("replaced") or {}) and record["top1_ema"] is not None:
        row |= {"top1": record["top1_ema"], "top1_best": None}  # the best epoch is only known of the last weights
    if record["status"] == DIVERGED:  # what was measured on the way down is no top-1
        row |= dict.fromkeys(("top1", "top1_best", "top1_ema"))
    git, starts = record["git"], record.get("starts") or []
    settings = {key: record.get(key) for key in (*RECORDED, *_OPTIONAL, "versions")}
    settings |= {key: _aged(values, key) for key in RECORDED if (values := settings[key]) is not None}
    text = _canonical(settings)
    _check_sections(text)
    row |= {
        "path": path,
        "label": record.get("label") or record["step"] or ("+".join(changes) if unknown else label_of(changes)),
        "changes": "+".join(name for name in changes if name not in idle),
        "idle": "+".join(sorted(idle)),
        "unknown": "+".join(unknown),
        "averaged": int(averaged),
        "recipe": recipe["name"],
        "without": "+".join(recipe.get("without") or ()),
        "budget": record["budget"]["name"],
        "data": data["name"],
        "eval_size": record.get("eval_size") or data.get("eval_images"),
        "starts": sum(entry.get("starts", 1) for entry in starts) if starts else None,
        "mixed": "; ".join(changes_of(starts)),
        "git_commit": git.get("commit"),
        "git_dirty": None if git.get("dirty") is None else int(git["dirty"]),
        "command": rebuilt(record),
        "profile": _hash(_canonical(profile_of(record)) + "matched" * row["matched"]),
        "variant": _hash(_canonical(bare(settings))),
        "settings": _hash(text),
    }
    return _checked(row), text


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its text fit to be shown. Raises ValueError where a column holds what is not of its type."""
    for name, value in row.items():
        kind, most = COLUMNS[name], MOST_LETTERS if name in LISTS else LONGEST_PATH
        if value is None:
            continue
        if not isinstance(value, _TYPES[kind]) or isinstance(value, bool):
            raise ValueError(f"{name} is a {type(value).__name__} instead of {kind.lower()}")
        if isinstance(value, str):
            if len(value) > most:
                raise ValueError(f"{name} has {len(value)} letters, more than {most}")
            row[name] = value if name == "path" else visible(value)
        elif number(row, name, -LARGEST, LARGEST) is None:
            raise ValueError(f"{name}={value} is beyond what a run can have")
    return row


@cache
def _check_sections(text: str) -> None:
    """Raise ConfigError where a setting of a record has another type than ours has."""
    settings = json.loads(text)
    for section, cls in RECORDED.items():
        for key, hint in get_type_hints(cls).items():
            if settings[section] is not None and key in settings[section]:
                typed(f"{section}.{key}", settings[section][key], hint)
    for name, value in (settings["replaced"] or {}).items():
        section, _, key = name.partition(".")
        hints = get_type_hints(RECORDED[section]) if section in RECORDED else {}
        if key in hints:
            typed(f"replaced.{name}", value, hints[key])


def located(runs: pd.DataFrame, road: Roadmap) -> pd.DataFrame:
    """The rows with the step of a roadmap that each is at, and its set in the order of that roadmap.

    A change is idle in a whole ladder (runs of one regime, profile and variant) where some of its runs say so and none
    holds it. A run that is at two steps, since the change between them is idle, is at the first.
    """
    runs = runs.copy()
    held, idle = ([frozenset(filter(None, text.split("+"))) for text in runs[name]] for name in ("changes", "idle"))
    keys = list(zip(runs["regime"], runs["profile"], runs["variant"], strict=True))
    active: dict[Any, set[str]] = {key: set() for key in keys}
    nothing: dict[Any, set[str]] = {key: set() for key in keys}
    for key, changes, without in zip(keys, held, idle, strict=True):
        active[key] |= changes
        nothing[key] |= without
    shared = [frozenset(nothing[key] - active[key]) for key in keys]
    # hashing a roadmap takes longer than all else, so that no row does
    at, ordered = cache(partial(step_of, road=road)), cache(partial(in_order, road=road))
    own = (runs[name] for name in ("recipe", "plain", "without"))
    steps = [
        at(recipe, changes, idle_here) if plain and not without else None
        for recipe, plain, without, changes, idle_here in zip(*own, held, shared, strict=True)
    ]
    runs["step"] = pd.Series(steps, index=runs.index, dtype=object)
    runs["idle"] = ["+".join(sorted(without)) for without in shared]
    runs["changes"] = [
        text if unknown else "+".join(ordered(changes))
        for text, changes, unknown in zip(runs["changes"], held, runs["unknown"], strict=True)
    ]
    return runs


@cache
def step_of(recipe: str, changes: frozenset[str], idle: frozenset[str], road: Roadmap) -> str | None:
    """The first step of a roadmap with these changes and this recipe, idle changes aside; None off it."""
    return next((step.name for step in steps_at(changes, recipe, road, idle)), None)


def bare(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe fixes, as it would be without the changes: the same for all runs of one ladder.

    Keys that are younger than some records are left out at the value that those computed. The peak rate is left out
    where it follows from the batch, which a change may set.
    """
    recipe, batch = dict(settings["recipe"]), dict(settings.get("batch") or {})
    design = whole(settings["design"], "design")
    flags = {flag: design.get(flag) for flag in _RECIPE_FLAGS}
    if _rate_follows(recipe, batch):
        recipe.pop("lr")
    for key, value in (settings.get("replaced") or {}).items():
        section, _, leaf = key.partition(".")
        {"recipe": recipe, "batch": batch}.get(section, {})[leaf] = value
        if section == "recipe" and leaf in flags:
            flags[leaf] = value
    sections = {"recipe": recipe, "batch": batch, "design": flags}
    return {name: _aged(values, name) for name, values in sections.items()}


def profile_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What all runs of one ladder share; runs in which it differs are never averaged or put into one ladder."""
    data = {key: value for key, value in settings["data"].items() if key not in _NOT_CONTENT}
    return {
        "data": _aged(data, "data"),
        "budget": _aged(settings["budget"], "budget"),
        "design": {"stem_stride": settings["design"].get("stem_stride")},
        "image_size": settings.get("image_size"),
        "precision": settings.get("precision"),
    }


def whole(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    """A recorded section with the keys that are younger than it, at the value that it computed."""
    return {**_before(section), **values}


def _aged(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The same without them: equal for records from before and after a key came."""
    before = _before(section)
    return {key: value for key, value in values.items() if not (key in before and value == before[key])}


@cache
def _before(section: str) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(before_of(RECORDED[section])))
    return plain


def _rate_follows(recipe: Mapping[str, Any], batch: Mapping[str, Any]) -> bool:
    """Whether the peak rate is the recipe's own at its batch, and not typed."""
    known: list[Any] = [*(recipe.get(key) for key in ("lr", "base_lr", "lr_batch")), batch.get("size")]
    if None in known:
        return False
    rate, base, over, size = map(float, known)
    return math.isclose(rate, base * size / over)


def _check_claim(claim: str | None, changes: tuple[str, ...], recipe: str, idle: set[str], exact: bool) -> None:
    """Raise ValueError where a record claims a step that is known here and is not at it."""
    name, _, step = (claim or "").rpartition(".")
    road = ROADMAPS.get(name or DEFAULT.name)
    if road is None or step not in road.by_name:
        return
    if not exact or all(found.name != step for found in steps_at(changes, recipe, road, idle)):
        raise ValueError(f"it claims step {claim}, but its changes, recipe or design are not that step's")


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@cache
def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _of_the_width(regime: str) -> frozenset[str]:
    """The changes that set the width alone: where every network has its own width they do nothing."""
    return frozenset(name for name, change in FILES.items() if set(change.delta_in(regime)) == {"width"})


@cache
def _is_plain(design_json: str, changes: tuple[str, ...], regime: str, width_is_free: bool) -> bool:
    """True if the recorded design is what (regime, changes) resolve to, the recipe's and the data's flags aside."""
    recorded = {key: value for key, value in json.loads(design_json).items() if key != "name"}
    try:
        design = Design(**whole(recorded, "design"))
        free = {key: getattr(design, key) for key in (*_RECIPE_FLAGS, "stem_stride")}
        if width_is_free:
            free["width"] = design.width
        return design_for(changes, regime, **free) == design
    except (UserError, TypeError) as error:
        raise ValueError(f"its design is not one of this version: {error}") from None
