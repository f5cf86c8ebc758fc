"""From a composed config to `Settings`: everything asked for is checked and resolved before torch is imported."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.config.fields import is_resolved
from experiments.config.identity import idle_fields
from experiments.config.init_from import network_changes, network_of
from experiments.config.labels import labels_of
from experiments.config.schema import known_keys, unknown_key
from experiments.config.settings import PRECISIONS, SECTIONS, Batch, Data, Recipe, Settings
from experiments.config.techniques import TECHNIQUES, without
from experiments.config.training_changes import Trained, trained
from experiments.errors import ConfigError
from roadmap.changes import FILES
from roadmap.design import Design, flags_asked_by
from roadmap.files import found, read
from roadmap.match import match_width
from roadmap.regimes import filled, regime, stem_stride_in
from roadmap.resolve import design_for, set_of
from roadmap.steps import Step, roadmap_named

MISSING = "???"  # how OmegaConf shows a value that nobody set
LINEAR_BATCHES = (256, 8192)  # between these the learning rate follows the effective batch (Goyal et al., 2017)
COMPOSED = {name: cls for name, cls in SECTIONS.items() if name != "design"}  # a design is resolved
# Top-level keys that go into `Settings` as they are.
PLAIN = (
    *("seed", "image_size", "runs_dir", "rerun", "retry_failed", "deterministic", "compile", "grad_checkpointing"),
    *("device", "threads", "workers", "worker_timeout", "init_from"),
)
# Names that say which file a group was composed from; typing one would make a record lie about its values.
GROUP_NAMES = ("recipe", "budget", "data", "logger", "regime", "roadmap", "study")


def settings_from(config: Mapping[str, Any], overrides: Sequence[str] = ()) -> Settings:
    """Check and resolve a composed config.

    Args:
        config: the config as plain containers (`OmegaConf.to_container(..., resolve=True)`).
        overrides: what was typed, as Hydra overrides ("recipe.lr=1e-3"): a typed value without effect is refused.

    Raises:
        ConfigError, DesignError: one line that names the key and what is allowed.
    """
    typed = {override.split("=", 1)[0].lstrip("+~") for override in overrides}
    _check_whole(config, overrides)
    _check_group_names(config, typed)
    _check_fixed_values(config)
    source = network_of(config)
    changes, techniques = _set_of(config) if source is None else (network_changes(source), ())
    training = trained(config, changes, roadmap_named(config["roadmap"]["name"]).end.changes, typed)
    _refuse_empty(config, training)
    parts = _parts(config, training)
    recipe = without(parts["recipe"], (*parts["recipe"].without, *techniques), typed)
    _refuse_idle(recipe, config, typed)
    flags = {key: value for key, value in config["design"].items() if value != MISSING}
    if source is None:
        design = _resolve_design(config, changes, recipe, parts["data"], flags)
    else:
        design = source.design.replace(drop_path=recipe.drop_path, dropout=recipe.dropout).replace(**flags)
    recipe = dataclasses.replace(recipe, **{key: getattr(design, key) for key in flags_asked_by("recipe")})
    if "stem_stride" in flags:
        parts["data"] = dataclasses.replace(parts["data"], stem_stride=design.stem_stride)
    labels = labels_of(changes, design, recipe, config["regime"]["name"], training.idle)
    rate = _peak_rate(recipe, parts["batch"])
    recipe = dataclasses.replace(recipe, lr=rate)
    plain = {key: config[key] for key in PLAIN}
    settings = Settings(
        **{**parts, "recipe": recipe},
        **plain,
        design=design,
        regime=config["regime"]["name"],
        **labels._asdict(),
        replaced=training.replaced or None,
        study=config["study"]["name"],
        lr=rate,
    )
    return settings.replace(precision=_precision(config["precision"], settings.device))


def _start(config: Mapping[str, Any]) -> Step:
    """The step that was asked for; the roadmap's first where none was."""
    road = roadmap_named(config["roadmap"]["name"])
    return road.step_named(config["step"]) if config["step"] else road.root


def _set_of(config: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The set of changes that is asked for, and techniques of the recipe that `drop` names beside changes."""
    for key in ("add", "drop"):
        if not all(isinstance(name, str) for name in config[key]):
            raise ConfigError(f"{key}={config[key]} must be a list of names")
    road = roadmap_named(config["roadmap"]["name"])
    start = _start(config)
    techniques = tuple(name for name in config["drop"] if name in TECHNIQUES and name not in start.changes)
    drop = [name for name in config["drop"] if name not in techniques]
    return set_of(start.changes, config["add"], drop, road), techniques


def _refuse_empty(config: Mapping[str, Any], training: Trained) -> None:
    """A change that is added by name must change something, unless this data or a typed key leaves it nothing to do."""
    road, regime_name = roadmap_named(config["roadmap"]["name"]), config["regime"]["name"]
    start = _start(config)
    for change in config["add"]:
        keys = [key for key in FILES[change].delta_in(regime_name) if "." in key]
        trains = any(training.values.get(key) != training.replaced.get(key) for key in keys)
        if change in training.idle or trains:
            continue
        alone = set_of(start.changes, add=[change], road=road)
        if design_for(alone, regime_name) == design_for(start.changes, regime_name):
            has = f"recipe={config['recipe']['name']}" if keys else start.name
            raise ConfigError(f"add=[{change}] changes nothing here: {has} has it already")


def _parts(config: Mapping[str, Any], training: Trained) -> dict[str, Any]:
    """The sections of the settings, with what the changes set in them."""
    values: dict[str, Any] = {name: dict(config[name]) for name in COMPOSED}
    for key, value in training.values.items():
        section, _, leaf = key.partition(".")
        values[section][leaf] = value
    return {name: cls(**values[name]) for name, cls in COMPOSED.items()}


def _check_whole(config: Mapping[str, Any], overrides: Iterable[str]) -> None:
    """Nothing may be taken out of the config or left open in it: a default would stand in silently."""
    for override in overrides:
        if override.startswith("~"):
            raise ConfigError(f"{override}: a key cannot be deleted; set it to another value instead")
    _check_keys(config)
    for name, cls in COMPOSED.items():
        for item in dataclasses.fields(cls):
            if not is_resolved(item) and config.get(name, {}).get(item.name, MISSING) == MISSING:
                raise ConfigError(f"{name}.{item.name} is not set: choose a file with {name}=")


def _check_keys(config: Mapping[str, Any]) -> None:
    """`+key=value` appends any key to a config: one that nothing reads is refused."""
    known = set(known_keys())
    sections = {key.partition(".")[0] for key in known if "." in key}
    for key, value in config.items():
        inside = [f"{key}.{name}" for name in value] if key in sections else []
        for name in (key, *inside):
            if name not in known:
                raise unknown_key(name)


def _check_group_names(config: Mapping[str, Any], typed: Iterable[str]) -> None:
    """Each group's name must be that of its file, and recipe and budget must belong together."""
    for group in GROUP_NAMES:
        if f"{group}.name" in typed:
            option = f"+{group}" if group == "study" else group
            raise ConfigError(f"{group}.name cannot be set; choose one of the files in conf/{group} with {option}=NAME")
    budget, recipe = config["budget"]["name"], config["recipe"]["name"]
    if budget != "paper" and f"{budget}_{recipe}" not in found("overlay"):
        raise ConfigError(
            f"budget={budget} has no values for recipe={recipe}: "
            f"write conf/overlay/{budget}_{recipe}.yaml or use budget=paper"
        )


def _check_fixed_values(config: Mapping[str, Any]) -> None:
    """A regime and the deltas of the steps are what their files say; they are not edited from the command line."""
    name = config["regime"]["name"]
    for key, value in regime(name).items():
        if config["regime"][key] != value:
            raise ConfigError(f"regime.{key} is fixed by regime={name}; use the design.* keys for another network")
    road = config["roadmap"]["name"]
    for key, value in read(found("roadmap")[road])["roadmap"].items():
        if config["roadmap"][key] != value:
            raise ConfigError(f"roadmap.{key} is fixed by roadmap={road}; write a roadmap file of your own")
    step = config["step"]
    for change, delta in config["changes"].items():
        if step is None or change not in FILES or delta != filled(FILES[change].raw, name):
            raise ConfigError(
                f"changes.{change} is set by the step and cannot be edited; use add=[...], drop=[...] or design.*"
            )


def _refuse_idle(recipe: Recipe, config: Mapping[str, Any], typed: Iterable[str]) -> None:
    """A typed value that something else makes ineffective is an error, not a surprise."""
    idle = {f"recipe.{key}": reason for key, reason in idle_fields(recipe).items()}
    if recipe.lr is not None:
        idle |= dict.fromkeys(("recipe.base_lr", "recipe.lr_batch"), f"recipe.lr={recipe.lr:g}")
    for key, value in config["design"].items():
        if value != MISSING:
            idle[f"data.{key}" if key == "stem_stride" else f"recipe.{key}"] = f"design.{key}={value}"
    for key in sorted(set(typed) & set(idle)):
        raise ConfigError(f"{key} has no effect together with {idle[key]}: drop one of them")


def _resolve_design(
    config: Mapping[str, Any], changes: Sequence[str], recipe: Recipe, data: Data, flags: Mapping[str, Any]
) -> Design:
    """The final design: the changes in their regime, then what recipe and data ask for, then typed flags."""
    _refuse_undone(config, flags)
    asks = {key: getattr(recipe, key) for key in flags_asked_by("recipe")}
    asks["stem_stride"] = stem_stride_in(config["regime"]["name"], data.stem_stride)
    design = design_for(changes, config["regime"]["name"], **{**asks, **flags})
    if config["match_gmacs"] is not None:
        if "width" in flags:
            raise ConfigError("match_gmacs chooses the width: drop it or design.width")
        design = match_width(design, config["match_gmacs"], stem_stride=stem_stride_in(config["regime"]["name"]))
    return design


def _refuse_undone(config: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """A change that is asked for by name must not be taken back by typed flags."""
    for change in config["add"]:
        delta = FILES[change].design_in(config["regime"]["name"])
        taken = [key for key, value in delta.items() if key in flags and _plain(flags[key]) != _plain(value)]
        if taken and len(taken) == len(delta):
            raise ConfigError(f"design.{taken[0]}={flags[taken[0]]} takes back add=[{change}]: drop one of the two")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _peak_rate(recipe: Recipe, batch: Batch) -> float:
    """The peak learning rate: as set, or linear in the effective batch where that rule is known to hold."""
    low, high = LINEAR_BATCHES
    if recipe.lr is not None:
        rate = recipe.lr
    elif batch.size == recipe.lr_batch:
        rate = recipe.base_lr
    elif low <= batch.size <= high and low <= recipe.lr_batch <= high:
        rate = recipe.base_lr * batch.size / recipe.lr_batch
    else:
        raise ConfigError(
            f"recipe.lr must be set for batch.size={batch.size}: the recipe's rate is for recipe.lr_batch="
            f"{recipe.lr_batch}, and scaling it is known to hold only within {low}-{high}"
        )
    if recipe.schedule == "cosine" and recipe.min_lr > rate:
        raise ConfigError(
            f"recipe.min_lr={recipe.min_lr:g} must be at most the peak rate {rate:g} (recipe.lr, recipe.base_lr)"
        )
    return rate


def _precision(asked: str, device: str) -> str:
    """`auto` resolved for this machine: bf16 where the GPU has it, else fp16; fp32 on a CPU."""
    if asked != "auto":
        if asked not in PRECISIONS:
            raise ConfigError(f"precision={asked} is not one of: auto, {', '.join(PRECISIONS)}")
        return asked
    if device == "cpu":
        return "fp32"
    import torch

    if not torch.cuda.is_available():
        return "fp32"
    return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
