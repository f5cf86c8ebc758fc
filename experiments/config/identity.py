"""What makes two runs the same run: a hash of everything that was asked for and changes the result."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from experiments.config.fields import beside_before
from experiments.config.registry import RECIPE, unread
from experiments.config.settings import Recipe, Settings
from roadmap.design import flags_asked_by

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
