"""Hydra's schema, derived from the fields of `Settings`: an unknown key or a wrong type fails while composing."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import field, make_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import hydra
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException, OverrideParseException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config.fields import is_optional, is_resolved, without_none
from experiments.config.hydra_versions import VERSION_BASE, hush
from experiments.config.registry import LAUNCHERS
from experiments.config.settings import Settings
from experiments.errors import ConfigError, MissingExtraError
from experiments.strict_json import LARGEST_INT
from roadmap.design import Design
from roadmap.files import CONF
from roadmap.program import train_command
from roadmap.steps import roadmap_named

# Keys with another type or default in the config than once resolved.
OPEN = {"precision", "image_size"}
OPEN_MAPPINGS = ("recipe.opt", "logger.mirrors")
GROUPS = ("budget", "data", "launcher", "logger", "recipe", "regime", "roadmap", "step", "study")  # folders of conf/
QUOTING = """put a value with blanks, accents or any of ~=[]{},:()$ in two pairs of quotes: 'data.root="/data/a=b"'"""


def _annotation(annotation: Any) -> Any:
    """A field's type in the words that OmegaConf understands."""
    plain = without_none(annotation)
    if get_origin(plain) is tuple:
        plain = list[get_args(plain)[0]]  # type: ignore[misc]
    elif get_origin(plain) is Mapping:
        plain = dict[str, Any]
    elif get_args(plain):  # a union such as int | str
        return Any
    elif dataclasses.is_dataclass(plain):
        return schema_of(plain)
    return plain | None if is_optional(annotation) else plain


def _default(item: "dataclasses.Field[Any]", annotation: Any) -> Any:
    """The field's default as a dataclass field of an unfrozen class."""
    if dataclasses.is_dataclass(annotation):
        factory: Any = annotation
        return field(default_factory=factory)
    if isinstance(item.default, tuple):
        values = list(item.default)
        return field(default_factory=lambda: list(values))
    if item.default_factory is not dataclasses.MISSING:
        return field(default_factory=item.default_factory)
    return field(default=MISSING if item.default is dataclasses.MISSING else item.default)


def schema_of(cls: Any, *, open_values: bool = False) -> Any:
    """An unfrozen twin of a frozen dataclass; with `open_values` every value is missing until somebody sets it."""
    hints = get_type_hints(cls)
    fields = []
    for item in dataclasses.fields(cls):
        if is_resolved(item) or (cls is Settings and item.name in OPEN):
            continue
        annotation = _annotation(hints[item.name])
        fields.append((item.name, annotation, field(default=MISSING) if open_values else _default(item, annotation)))
    return make_dataclass(cls.__name__, fields)


def _regime() -> Any:
    values = [("name", str), ("depths", list[int]), ("width", float)]
    values += [("stage_ratio", dict[str, Any]), ("wide", float), ("drop_path", float)]
    fields = [(name, kind, field(default=MISSING)) for name, kind in values]
    return make_dataclass("Regime", [*fields, ("stem_factor", int, field(default=1))])


def _roadmap() -> Any:
    values = [("name", str), ("title", str), ("source", str), ("steps", list[str])]
    optional = [("behind", str | None, None), ("published", str | None, None), ("image_size", int, 224)]
    return make_dataclass(
        "Roadmap",
        [
            *((name, kind, field(default=MISSING)) for name, kind in values),
            *((name, kind, field(default=value)) for name, kind, value in optional),
            ("regimes", list[str], field(default_factory=lambda: ["tiny"])),
            ("branches", dict[str, list[str]], field(default_factory=dict)),
        ],
    )


def _study() -> Any:
    """What a study sweeps over, and its generated `list` with `params`; `file` and `run` lead a job to its settings."""
    values: list[Any] = [(key, str | None, field(default=None)) for key in ("name", "list", "file", "run")]
    values += [(key, dict[str, Any], field(default_factory=dict)) for key in ("sweep", "params")]
    return make_dataclass("Study", values)


def config_schema() -> Any:
    """The schema of the whole config: the groups, what was typed, and how to run."""
    design, regime, roadmap, study = schema_of(Design, open_values=True), _regime(), _roadmap(), _study()
    own = [
        ("step", str | None, field(default=None)),
        ("changes", dict[str, dict[str, Any]], field(default_factory=dict)),
        ("instead", dict[str, Any], field(default_factory=dict)),
        ("add", list[str], field(default_factory=list)),
        ("drop", list[str], field(default_factory=list)),
        ("match_gmacs", float | None, field(default=None)),
        ("replan", bool, field(default=False)),
        ("precision", str, field(default="auto")),
        ("image_size", int, field(default="${data.image_size}")),
        ("regime", regime, field(default_factory=regime)),
        ("roadmap", roadmap, field(default_factory=roadmap)),
        ("design", design, field(default_factory=design)),
        ("study", study, field(default_factory=study)),
    ]
    base = schema_of(Settings)
    return make_dataclass("Config", own, bases=(base,))


@cache
def known_keys() -> tuple[str, ...]:
    """Every key of the config, sections and what lies in them: "seed", "recipe", "recipe.lr", ..."""

    def walk(cls: Any, prefix: str) -> Iterator[str]:
        for item in dataclasses.fields(cls):
            yield prefix + item.name
            if dataclasses.is_dataclass(item.type):
                yield from walk(item.type, f"{prefix}{item.name}.")

    return tuple(walk(config_schema(), ""))


def unknown_key(key: str) -> ConfigError:
    """The refusal of a key that does not exist, with the one that was probably meant."""
    keys = known_keys()
    by_leaf = {known.rpartition(".")[2]: known for known in reversed(keys)}
    near = get_close_matches(key, keys, n=1, cutoff=0.75)
    near = near or [by_leaf[leaf] for leaf in get_close_matches(key.rpartition(".")[2], by_leaf, n=1, cutoff=0.75)]
    hint = f"did you mean {near[0]}?" if near else f"{train_command()} --cfg job lists all"
    return ConfigError(f"{key} is not a key of the configuration: {hint}")


@cache
def register() -> None:
    """Make known to Hydra what conf/config.yaml names: the schema, and the sweeper that runs studies."""
    store = ConfigStore.instance()
    schema = OmegaConf.structured(config_schema())
    for key in OPEN_MAPPINGS:
        OmegaConf.set_struct(OmegaConf.select(schema, key), False)  # takes any name, in a file and on the command line
    store.store(name="schema", node=schema)
    sweeper = {"_target_": "hydra_plugins.convnext_roadmap_studies.StudySweeper", "params": None}
    store.store(group="hydra/sweeper", name="study", node=sweeper)
    hush()  # in force where plugins are looked for, also when somebody has reset the filters since the import
    OmegaConf.register_new_resolver("gpus_per_run", _gpus_per_run, replace=True)
    OmegaConf.register_new_resolver("steps", _steps, replace=True)


def _steps(roadmap: str) -> str:
    """For conf/study/ladder.yaml: the steps of a roadmap as the values of a sweep."""
    return ",".join(step.name for step in roadmap_named(roadmap).steps)


def _gpus_per_run(device: str) -> int:
    """For conf/launcher/ray.yaml, resolved when a study is launched: 1 where runs use a GPU, else 0."""
    if device != "auto":
        return int(device.startswith("cuda"))
    import torch

    return int(torch.cuda.is_available())


def one_line(error: BaseException) -> str:
    """Hydra's and OmegaConf's refusals on one line: the key and the options, without their object dumps."""
    text = "\n".join(str(part) for part in (error, error.__cause__) if part).split("Config search path:")[0]
    text, _, options = text.partition("Available options in ")
    noise = ("object_type=", "reference_type=", "Set the env")
    kept = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(noise)]
    group, *names = [line.strip() for line in options.splitlines() if line.strip()] or [""]
    kept += [f"available in {group} {', '.join(names)}"] if names else []
    return "; ".join(dict.fromkeys(kept)).replace("full_key: ", "key: ")


def check_overrides(overrides: Sequence[str]) -> None:
    """Raise ConfigError for what Hydra does not refuse in a line of its own: no text, and no name of a group's file."""
    for text in overrides:
        if "\0" in text or text != text.encode(errors="replace").decode():  # as Python holds bytes that are no UTF-8
            raise ConfigError(f"{text}: no text in UTF-8")
    with refusals():
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    for item in parsed:
        value: Any = None if item.is_delete() else item.value()
        given = value.list if isinstance(value, ChoiceSweep) else [value]
        if any(isinstance(one, int) and abs(one) > LARGEST_INT for one in _flat(given)):
            raise ConfigError(f"{item.key_or_group} holds an integer that 64 bits cannot hold")
        if item.key_or_group in GROUPS and not item.is_delete() and not all(map(_names, given)):
            raise ConfigError(f"{item.input_line}: {item.key_or_group} must be the name of a file in conf/")


def _flat(value: Any) -> Iterator[Any]:
    """What lies in nested lists and mappings."""
    if isinstance(value, list | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _flat(item)
    else:
        yield value


def _names(value: Any) -> bool:
    """Whether a value names a file of a group, or several."""
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str | QuotedString) for name in names)


@contextmanager
def refusals() -> Iterator[None]:
    """Turn Hydra's and OmegaConf's refusals into ConfigErrors of one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        for launcher, extra in LAUNCHERS.items():
            if f"hydra/launcher/{launcher}" in str(error):
                what = f"'convnext-roadmap[{extra}]' (in a checkout '.[{extra}]')"
                raise MissingExtraError(f"launcher={extra} is not installed: pip install {what}") from None
        absent = re.search(r"Could not override '([^']+)'", str(error))
        if absent and "Key '" in f"{error} {error.__cause__}":
            raise unknown_key(absent[1]) from None
        if isinstance(error, OverrideParseException):
            raise ConfigError(f"{error.override} cannot be read: {QUOTING}") from None
        raise ConfigError(one_line(error)) from None


@contextmanager
def composing() -> Iterator[None]:
    """Where configs can be composed; Hydra's refusals are ConfigErrors. Inside run.py its own folders are in force."""
    register()
    running = GlobalHydra.instance().is_initialized()
    with (
        refusals(),
        nullcontext() if running else initialize_config_dir(config_dir=str(CONF), version_base=VERSION_BASE),
    ):
        yield


def compose(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The config of conf/ under Hydra overrides, as plain containers: what `compose.settings_from` takes.

    Raises:
        ConfigError: an unknown key or group, or a value of a wrong type.
    """
    check_overrides(overrides)
    with composing():
        config: Any = OmegaConf.to_container(hydra.compose("config", overrides=list(overrides)), resolve=True)
    plain: dict[str, Any] = config
    return plain
