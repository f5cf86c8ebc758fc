"""What makes two runs the same run: a hash of everything that was asked for and changes the result."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from experiments.config.fields import before_of, beside_before
from experiments.config.registry import RECIPE, unread
from experiments.config.settings import MACHINE_KEYS, SECTIONS, Recipe, Settings
from roadmap.design import flags_asked_by
from roadmap.errors import UserError

# Raised when a change of the code alters results, so that older records are not taken for new ones.
RESULTS_VERSION = 1

# Recipe fields that are part of the design or of the peak learning rate, which are hashed in their resolved form.
_RESOLVED_ELSEWHERE = {"lr", "base_lr", "lr_batch", *flags_asked_by("recipe")}
# Data fields that say where the images come from or what the design and `image_size` start from.
_NOT_CONTENT = {"root", "download", "damaged_share", "image_size", "stem_stride"}


def idle_fields(recipe: Recipe) -> dict[str, str]:
    """Recipe fields that have no effect, each with the setting that makes it so."""
    idle = dict(unread({key: getattr(recipe, key) for key in RECIPE}))
    if recipe.weight_decay == 0:
        idle["decay_all"] = "recipe.weight_decay=0"
    if not (recipe.mixup and recipe.cutmix):
        idle["mixup_switch"] = "recipe.mixup=0" if not recipe.mixup else "recipe.cutmix=0"
    if recipe.ema is None:
        idle["ema_every"] = "recipe.ema=null"
    return idle


@dataclass(frozen=True)
class Identity:
    """What makes a run this run; computed once a run and handed on.

    Attributes:
        asked: everything that the ids cover, as JSON-able values.
        run_id: SHA-256 (64 hex digits) of it.
        config_id: the same without the seed: runs that may be averaged share it.
    """

    asked: dict[str, Any]
    run_id: str
    config_id: str

    @classmethod
    def of(cls, settings: Settings) -> "Identity":
        """The identity of a run whose data has its checksum."""
        asked = _asked(settings)
        return cls(asked, _digest(asked), _digest({key: value for key, value in asked.items() if key != "seed"}))


def run_id(settings: Settings) -> str:
    """The id of a run, where nothing else of its identity is wanted."""
    return Identity.of(settings).run_id


RECORDED = {key: cls for key, cls in SECTIONS.items() if key not in MACHINE_KEYS}  # the sections that a record holds
_PLAIN = ("regime", "image_size", "precision")
_ON_ONE_MACHINE = {"root"}  # of data: no record has it


def ids_follow(record: Mapping[str, Any]) -> bool:
    """Whether the ids of a record are those of what it says was asked for.

    True as well where it does not say all of it, or says what this version does not know: nothing speaks against it.
    """
    if not (set(_PLAIN) <= record.keys() and all(_is_whole(cls, record.get(key)) for key, cls in RECORDED.items())):
        return True
    sections = json.dumps({key: record[key] for key in (*RECORDED, *_PLAIN)}, sort_keys=True)
    asked = _asked_in(sections, record.get("init_from"))
    if asked is None:
        return True
    ids = (record["run_id"], record["config_id"])
    versions = ({**asked, "results_version": version} for version in range(1, RESULTS_VERSION + 1))
    return any(ids == (_digest({**found, "seed": record["seed"]}), _digest(found)) for found in versions)


def _is_whole(cls: type[Any], values: Any) -> bool:
    """Whether a recorded section has every field that is not younger than some records."""
    known = {item.name for item in dataclasses.fields(cls)} - before_of(cls).keys() - _ON_ONE_MACHINE
    return isinstance(values, Mapping) and known <= values.keys()


@lru_cache(maxsize=256)  # the runs of a folder differ in little but the seed
def _asked_in(sections: str, init_weights: str | None) -> dict[str, Any] | None:
    """What the ids cover but for the seed, of a record's sections as JSON; None where this version cannot read them."""
    values = json.loads(sections)
    try:
        settings = Settings.from_dict({**values, "lr": values["recipe"]["lr"], "init_weights": init_weights})
        return {key: value for key, value in _asked(settings).items() if key != "seed"}
    except (UserError, TypeError, ValueError):
        return None


def _asked(settings: Settings) -> dict[str, Any]:
    idle = _RESOLVED_ELSEWHERE | set(idle_fields(settings.recipe))
    recipe = {key: value for key, value in _values(settings.recipe).items() if key not in idle}
    data = {key: value for key, value in _values(settings.data).items() if key not in _NOT_CONTENT}
    asked = {
        "results_version": RESULTS_VERSION,
        "regime": settings.regime,
        "design": _values(settings.design),
        "recipe": recipe | {"lr": settings.lr},
        "budget": _values(settings.budget),
        "batch": _values(settings.batch),
        "data": data,
        "image_size": settings.image_size,
        "precision": settings.precision,
        "seed": settings.seed,
    }
    if settings.init_weights is not None:
        asked["init_weights"] = settings.init_weights
    plain: dict[str, Any] = json.loads(json.dumps(asked, allow_nan=False))
    return plain


def _values(section: Any) -> dict[str, Any]:
    """The fields of a section, but for those that ask for what was computed before they existed (`fields.later`)."""
    return beside_before(type(section), dataclasses.asdict(section))


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
