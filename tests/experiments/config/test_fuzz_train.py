"""The other half of the fuzz test: an override set that is accepted also trains a step and evaluates."""

import math
import re

import pytest

from experiments.commands import estimate
from experiments.config.compose import settings_from
from experiments.config.schema import compose
from experiments.config.settings import Settings
from roadmap import complexity_of
from roadmap.errors import UserError
from tests.experiments.config.fuzz import GROUPS, fuzzed_overrides

SETS = 500
SHARDS = 10
SEED = 20261122
# Where nothing else is asked for: networks and data that a laptop trains in a blink.
SMALL = ("regime=micro", "device=cpu", "threads=1", "workers=0")
GMACS_PER_STEP = 3.0  # sets that ask for more than this are composed by the other test and not trained here
READERS = ("digits", "synthetic")  # need no files


def cost(settings: Settings) -> float:
    """GMACs of one forward pass over a micro batch."""
    one = complexity_of(
        settings.design, image_size=settings.image_size, num_classes=10, in_chans=settings.data.channels
    )
    return one.gmacs * settings.batch.micro


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_accepted_sets_train_a_step(shard: int) -> None:
    trained = 0
    sets = fuzzed_overrides(SETS, SEED)[shard::SHARDS]
    for typed in sets:
        keys = [item.split("=")[0].lstrip("+") for item in typed]
        overrides = [*typed, *(item for item in SMALL if item.split("=")[0] not in keys)]
        refusal = None
        try:
            settings = settings_from(compose(overrides), overrides)
            if settings.data.reader not in READERS or cost(settings) > GMACS_PER_STEP or settings.compile != "none":
                continue
            found = estimate.measure(settings, seconds=0.0)
        except UserError as error:
            refusal = str(error)
        if refusal is not None:
            named = any(key in refusal for key in keys)
            by_group = set(keys) & {*GROUPS, "step"} and re.search(r"\b(batch|data|design|recipe)\.\w+", refusal)
            assert named or by_group, (typed, refusal)  # budget=paper on 1,437 images: it is batch.size that cannot be
            continue
        assert math.isfinite(found.seconds(1))
        trained += 1
    assert trained >= 0.3 * len(sets), trained
