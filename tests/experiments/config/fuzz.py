"""Random override sets over every key of the schema, for tests that compose them and tests that train with them."""

import math
import random
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from experiments.config.fields import (
    Choice,
    Each,
    Options,
    Pattern,
    Range,
    is_optional,
    is_resolved,
    rule_of,
    without_none,
)
from experiments.config.settings import Settings
from experiments.config.techniques import TECHNIQUES
from roadmap.files import CONF
from roadmap.steps import CHANGES, END, STEPS

DESIGN = {
    "depths": ["[1,1,1,1]", "[2,1,3,1]", "[1,2]", "[0,1,1,1]"],
    "width": ["8", "16", "12.5", "24", "-1"],
    "stem": ["resnet", "deep", "deep_conv", "patchify", "mlp"],
    "stem_stride": ["1", "2", "4", "8", "16", "3"],
    "groups": ["depthwise", "1", "2", "4", "0"],
    "kernel_size": ["1", "3", "5", "7", "13", "4"],
    "inverted": ["true", "false"],
    "spatial_first": ["true", "false"],
    "act": ["relu", "gelu", "tanh"],
    "fewer_acts": ["true", "false"],
    "fewer_norms": ["true", "false"],
    "norm": ["bn", "ln", "gn"],
    "separate_downsample": ["true", "false"],
    "boundary_norms": ["true", "false"],
    "early_stride": ["true", "false"],
    "pooled_shortcut": ["true", "false"],
    "squeeze_excite": ["null", "0.0625", "0.25", "0"],
    "grn": ["true", "false"],
    "layer_scale": ["null", "1e-6", "0.1", "-1"],
    "init": ["kaiming", "zero_gamma", "trunc_normal", "zeros"],
    "drop_path": ["0", "0.2", "0.5", "1"],
    "dropout": ["0", "0.25", "1"],
}
TOP = {
    "+step": [step.name for step in STEPS] + ["kernel_6"],
    "add": [f"[{name}]" for name in CHANGES] + ["[nothing]"],
    "drop": [f"[{name}]" for name in END.changes] + ["[]", "[kernel_6]"],
    "recipe.without": [f"[{name}]" for name in TECHNIQUES] + ["[]"],
    "match_gmacs": ["null", "0.5", "4.5", "-2"],
    "precision": ["auto", "fp32", "bf16", "fp64"],
    "image_size": ["32", "28", "64", "2"],
    "data.mean": ["[0.1,0.2,0.3]", "[0.5,0.5,0.5]", "[0.5]"],
    "data.std": ["[0.1,0.2,0.3]", "[0.5,0.5,0.5]", "[0.5,0.5,0]"],
    "data.root": ["null", "/somewhere", "images"],
    "runs_dir": ["runs", "out/runs"],
    # sizes that are often possible together
    "batch.size": ["64", "128", "256", "512", "100"],
    "batch.micro": ["8", "16", "32", "64", "60"],
    "recipe.lr_batch": ["64", "64", "64", "0"],  # of the demo overlay: scaling from another needs recipe.lr
    "recipe.warmup_epochs": ["0", "1", "2.5", "-1"],
    "recipe.epochs": ["1", "2", "3", "12", "0"],
    "recipe.min_lr": ["0", "1e-6", "1e-5", "-1"],
    "data.channels": ["3", "3", "1"],
    "data.download": ["false", "false"],
    "data.reader": ["digits", "synthetic", "tape"],
    "device": ["cpu", "cpu", "tpu"],
    "init_from": ["null", "null", "nowhere"],
    "recipe.freeze": ["[]", "[stem]", "[stages.0]", "[stem,stages]"],
    "logger.mirrors": ["{wandb:true}", "{tensorboard:true,wandb:false}", "{mail:true}"],
}
# What a key needs beside it to have an effect or to be possible.
PARTNERS = {
    "recipe.momentum": ["recipe.optimizer=sgd"],
    "recipe.bce_sum": ["recipe.loss=bce"],
    "recipe.bce_target_thresh": ["recipe.loss=bce"],
    "recipe.opt": ["recipe.optimizer=nadamw"],
    "recipe.ema_every": ["recipe.ema=0.9"],
    "recipe.decay_every": ["recipe.schedule=steps"],
    "recipe.decay_factor": ["recipe.schedule=steps"],
    "recipe.crop_scale": ["recipe.crop=resized"],
    "recipe.crop_pad": ["recipe.crop=shift"],
    "recipe.mixup_switch": ["recipe.mixup=0.8", "recipe.cutmix=1"],
    "recipe.without": ["budget=paper", "data=imagenet"],
    "drop": ["+step=separate_downsampling"],
    "batch.size": ["recipe.lr=1e-3"],
}
GROUPS = ("regime", "roadmap", "recipe", "budget", "data", "logger", "launcher")


def _numbers(rule: Range, whole: bool) -> list[str]:
    """Values inside a range, its closed ends where they are near, and one value outside."""
    low = rule.low if math.isfinite(rule.low) else -5.0
    high = min(rule.high, low + 8 if whole else low + 1)
    inside = [low + (high - low) * share for share in (0.25, 0.4, 0.5, 0.75)]
    ends = ([] if rule.open_low else [low]) + ([] if rule.open_high else [high])
    values = [str(round(v)) if whole else f"{v:.6g}" for v in inside + ends]
    return [*values, str(int(low) - 1 if whole else low - 1)]


def _values(rule: Any, kind: Any) -> list[str]:
    """Overrides' right-hand sides for a field, mostly allowed ones."""
    if isinstance(rule, Choice):
        return [*map(str, rule.options), "neither"]
    if isinstance(rule, Pattern):
        return [*rule.examples, *rule.examples, "no/such name"]
    if isinstance(rule, Each):
        return ["[0.2,0.9]", "[0.5,0.99]", "[0.5]"]
    if isinstance(rule, Options):
        return ["{}", "{eps:0.001}", "{caution:true,eps:0.002}", "{caution:true}", "{momentum:0.5}"]
    if isinstance(rule, Range):
        return _numbers(rule, kind is int)
    if kind is bool:
        return ["true", "false"]
    raise NotImplementedError(f"no values for {kind}")


def _keys(cls: Any, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    hints = get_type_hints(cls)
    for item in fields(cls):
        kind, key = without_none(hints[item.name]), prefix + item.name
        if is_resolved(item) or (prefix and item.name == "name") or key in TOP:
            continue
        if is_dataclass(kind):
            yield from _keys(kind, f"{key}.")
            continue
        assert get_origin(kind) is not tuple or get_args(kind), key
        yield key, _values(rule_of(item), kind) + (["null"] if is_optional(hints[item.name]) else [])


def pools() -> dict[str, list[str]]:
    """Every key of the schema with the values to draw from; groups and steps are keys as well."""
    found = dict(_keys(Settings)) | TOP | {f"design.{key}": values for key, values in DESIGN.items()}
    return found | {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in GROUPS}


def fuzzed_overrides(n: int, seed: int, only: tuple[str, ...] = ()) -> list[list[str]]:
    """`n` override sets of one to three drawn keys, each with what it needs beside it; they cover every key evenly.

    Args:
        n: how many.
        seed: of the draw.
        only: where given, just these keys are drawn.
    """
    draw = random.Random(seed)
    table = {key: values for key, values in pools().items() if not only or key in only}
    queue: list[str] = []
    sets = []
    for _ in range(n):
        count = draw.choice((1, 2, 2, 3))
        if len(queue) < count:
            queue += draw.sample(sorted(table), len(table))
        keys = dict.fromkeys(queue[:count])
        queue = queue[count:]
        partners = [override for key in keys for override in PARTNERS.get(key, ())]
        drawn = [f"{key}={draw.choice(table[key])}" for key in keys]
        sets.append(drawn + [item for item in partners if item.split("=")[0] not in keys])
    return sets
