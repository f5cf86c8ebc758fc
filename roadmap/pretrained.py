"""What a weights file needs beside it to be a network again: `config.json`, in the form of timm and the Hub.

timm reads `architecture`, `model_args` and `pretrained_cfg` of it, huggingface_hub's mixin and `roadmap.load` the whole
design under `roadmap`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from roadmap.design import BEFORE, FLAGS, Design
from roadmap.errors import UserError
from roadmap.files import CONF
from roadmap.fit import WeightsError
from roadmap.resolve import design_for
from roadmap.seals import check
from roadmap.steps import BY_NAME, DEFAULT

if TYPE_CHECKING:
    from roadmap.network import RoadmapNet

CONFIG = "config.json"
HUB, TIMM = "hf-hub:", "timm:"  # before the name of weights that are downloaded
CLASSIFIER, FIRST_CONV = "head.fc", "stem.conv"
TIMM_NAMES = {"drop_path": "drop_path_rate", "dropout": "drop_rate"}  # flags that timm has a name for
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Pretrained:
    """A trained network without its weights.

    Attributes:
        design: the network.
        num_classes: outputs.
        in_chans: channels of its images.
        image_size: side of the images that it was evaluated on, in pixels.
        mean: of the training data, per channel, of values from 0 to 1.
        std: likewise.
        crop_pct: side of the evaluation's centre crop over the resized side.
        interpolation: how it resizes: "bicubic" or "bilinear".
        label_names: names of the classes in the order of the outputs; empty where they are not known.
        about: where it comes from: regime, step, changes, run_id, ...; anything JSON can hold.
    """

    design: Design
    num_classes: int = 1000
    in_chans: int = 3
    image_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop_pct: float = 0.875
    interpolation: str = "bicubic"
    label_names: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def pretrained_cfg(self) -> dict[str, Any]:
        """What timm's `resolve_data_config` and `load_pretrained` read."""
        side = self.image_size // (self.design.stem_stride * 2 ** (len(self.design.depths) - 1))
        return {
            "input_size": [self.in_chans, self.image_size, self.image_size],
            "pool_size": [side, side],
            "interpolation": self.interpolation,
            "crop_pct": self.crop_pct,
            "mean": list(self.mean),
            "std": list(self.std),
            "num_classes": self.num_classes,
            "first_conv": FIRST_CONV,
            "classifier": CLASSIFIER,
        }

    def of(self, model: "RoadmapNet") -> "Pretrained":
        """The same of a network as it was built, with names of classes where they are as many."""
        names = self.label_names if len(self.label_names) == model.num_classes else ()
        return replace(
            self, design=model.design, num_classes=model.num_classes, in_chans=model.in_chans, label_names=names
        )

    def config(self) -> dict[str, Any]:
        """The content of `config.json`."""
        regime, step = self._published_step()
        start = asdict(design_for(step, regime))
        design = asdict(self.design)
        args = {TIMM_NAMES.get(flag, flag): value for flag, value in design.items() if value != start[flag]}
        return {
            "architecture": f"roadmap_{regime}_{step}",
            "num_classes": self.num_classes,
            **({"label_names": list(self.label_names)} if self.label_names else {}),
            "model_args": {"in_chans": self.in_chans, **args},
            "pretrained_cfg": self.pretrained_cfg(),
            "roadmap": {"design": design, "in_chans": self.in_chans, **self.about},
        }

    def _published_step(self) -> tuple[str, str]:
        """The regime and step of this package that come nearest by name: whoever loads it may have no others."""
        regime, step = str(self.about.get("regime")), str(self.about.get("step"))
        ours = {group: {path.stem for path in (CONF / group).glob("*.yaml")} for group in ("regime", "step")}
        regime = regime if regime in ours["regime"] else "tiny"
        return regime, step if step in BY_NAME and step in ours["step"] else DEFAULT.root.name

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> "Pretrained":
        """Read the content of a `config.json`, ours or one that timm saved of one of our models.

        Raises:
            KeyError, TypeError, ValueError, DesignError: it is of no network of ours.
        """
        own, data = config.get("roadmap", {}), config.get("pretrained_cfg", {})
        design = Design(**{**BEFORE, **own["design"]}) if own else _design_of_timm(config)
        args = config.get("model_args", {})
        size = data.get("input_size", (own.get("in_chans") or args.get("in_chans", 3), 224, 224))
        known = {key: data[key] for key in ("crop_pct", "interpolation") if key in data}
        known |= {key: tuple(data[key]) for key in ("mean", "std") if key in data}
        return cls(
            design,
            num_classes=int(config["num_classes"]),
            in_chans=int(size[0]),
            image_size=int(size[-1]),
            label_names=tuple(config.get("label_names") or ()),
            about={key: value for key, value in own.items() if key not in ("design", "in_chans")},
            **known,
        )

    @classmethod
    def of_run(cls, values: Mapping[str, Any], label_names: tuple[str, ...] = (), num_classes: int = 0) -> "Pretrained":
        """Read the values of a run's config.yaml.

        Args:
            values: what the run was asked for.
            label_names: the classes, where they are known.
            num_classes: as many as the weights have, where data.classes leaves it open.

        Raises:
            KeyError, TypeError, ValueError, DesignError: they are no run's.
        """
        data, recipe = values["data"], values["recipe"]
        return cls(
            Design(**{**BEFORE, **values["design"]}),
            num_classes=len(label_names) or data["classes"] or num_classes,
            in_chans=data["channels"],
            image_size=values["image_size"],
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            crop_pct=recipe["eval_crop"],
            interpolation=recipe["interpolation"],
            label_names=label_names,
            about={
                **{key: values.get(key) for key in ("regime", "step", "changes", "run_id", "seed")},
                "recipe": recipe["name"],
                "data": data["name"],
            },
        )

    @classmethod
    def beside(cls, folder: Path) -> "Pretrained | None":
        """What a folder says of the weights in it: its `config.json`, or the `config.yaml` of an older run.

        Raises:
            WeightsError: there is one, but it is of no network of ours.
            SealError: it is not what the run's record sealed.
        """
        for name, read, made in ((CONFIG, json.loads, cls.of_config), ("config.yaml", yaml.safe_load, cls.of_run)):
            path = Path(folder) / name
            if not path.is_file():
                continue
            check(path)
            try:
                return made(read(path.read_text()))
            except (OSError, KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError, UserError) as error:
                reason = f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
                raise WeightsError(f"{path} describes no network of a roadmap: {reason[:200]}") from None
        return None


def _design_of_timm(config: Mapping[str, Any]) -> Design:
    """The design of a registered name with timm's arguments."""
    from roadmap.timm_models import design_of

    ours = {name: flag for flag, name in TIMM_NAMES.items()}
    flags = {ours.get(key, key): value for key, value in config.get("model_args", {}).items()}
    flags = {key: value for key, value in flags.items() if key in FLAGS}
    return design_of(config["architecture"], **flags)
