"""One run of every step, and of sets off the ladder, with the id that it has had since it could be recorded.

`python -m tests.experiments.config.identities` adds runs to the file; the ids that are there never change.
"""

import dataclasses
import json
from typing import Any

from experiments.config.compose import settings_from
from experiments.config.identity import Identity
from experiments.config.schema import compose
from experiments.config.settings import MACHINE_KEYS, Settings
from roadmap.steps import DEFAULT, ROADMAPS, STEPS
from tests.conftest import ROOT

FILE = ROOT / "tests" / "golden" / "identities.json"
FIXED = ("precision=fp32", "device=cpu")
ASKED = (
    *((f"+step={step.name}",) for step in STEPS),
    ("+step=separate_downsampling", "regime=base", "budget=paper", "data=imagenet"),
    ("+step=separate_downsampling", "drop=[kernel_7]", "regime=micro"),
    ("+step=enhanced_recipe", "add=[gelu,layer_norm]", "seed=3"),
    ("+step=width", "match_gmacs=4.5", "data=fashion_mnist", "budget=proxy"),
    (
        "+step=gelu",
        "design.kernel_size=13",
        "data=synthetic",
        "recipe.without=[mixup]",
        "budget=paper",
        "recipe.lr=1e-3",
    ),
    ("+step=resnet50", "data=cifar10", "budget=proxy", "recipe.ema=0.99", "recipe.clip_grad=1.0"),
    *(
        (f"+step={step.name}", f"roadmap={road.name}", f"regime={road.regimes[0]}", "budget=paper", "data=imagenet")
        for road in ROADMAPS.values()
        if road is not DEFAULT
        for step in road.steps
    ),
    ("+step=separate_downsampling", "regime=isotropic", "data.stem_stride=2"),
    ("+step=separate_downsampling", "add=[resnet_d,squeeze_excite,ema]", "regime=micro"),
)


def settings_for(asked: tuple[str, ...]) -> Settings:
    """The settings of a run, with a checksum in place of that of real data."""
    typed = [*asked, *FIXED]
    settings = settings_from(compose(typed), typed)
    return settings.replace(data=dataclasses.replace(settings.data, checksum="0" * 32))


def plain(settings: Settings) -> dict[str, Any]:
    """What a frozen study keeps of a run."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return {key: value for key, value in values.items() if key not in MACHINE_KEYS}


def main() -> None:
    """Add the runs that the file lacks."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    for asked in ASKED:
        settings = settings_for(asked)
        known.setdefault(" ".join(asked), {"run_id": Identity.of(settings).run_id, "settings": plain(settings)})
    lines = (f"{json.dumps(name)}: {json.dumps(entry, sort_keys=True)}" for name, entry in known.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
