"""`Design`: defaults, every value it refuses, and what follows from width and depths."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadmap import Design, DesignError
from roadmap.design import BEFORE, FLAGS

REFUSED = {
    "depths": [(), [], (3, 4, 0, 3), (0,), (3, 4, 6.0, 3), (True, 4, 6, 3), 12, "3463", None],
    "width": [0, 0.4, -64, math.inf, math.nan, "64", True, None],
    "stem": ["conv", None, 4],
    "stem_stride": [3, 0, 32, "4", True, None],
    "groups": [0, -1, 2.0, "dense", True, None],
    "kernel_size": [2, 4, 0, -3, 7.0, "7", True, None],
    "inverted": [1, 0, "true", None],
    "spatial_first": [1, "no", None],
    "act": ["silu", None],
    "fewer_acts": [1, None],
    "fewer_norms": [0, None],
    "norm": ["gn", None],
    "separate_downsample": [1, None],
    "boundary_norms": ["yes", None],
    "early_stride": [1, None],
    "pooled_shortcut": [0, "yes"],
    "squeeze_excite": [0, -0.25, 1.01, math.nan, "0.25", True],
    "grn": [1, None],
    "layer_scale": [-1e-6, math.nan, math.inf, "1e-6", True],
    "init": ["zeros", None],
    "drop_path": [1, 1.5, -0.1, math.nan, "0.1", True, None],
    "dropout": [1, -0.1, "0.1", True, None],
}
WHAT_IS_ALLOWED = {
    "depths": "whole numbers of at least 1, one a stage",
    "width": "a number of at least 1",
    "stem": "resnet, deep, deep_conv, patchify",
    "stem_stride": "16, 8, 4, 2, 1",
    "groups": "depthwise or a whole number of at least 1",
    "kernel_size": "an odd whole number",
    "act": "relu, gelu",
    "norm": "bn, ln",
    "squeeze_excite": "null or a number above 0 and at most 1",
    "layer_scale": "null or a number of at least 0",
    "init": "kaiming, zero_gamma, trunc_normal",
    "drop_path": "at least 0 and below 1",
    "dropout": "at least 0 and below 1",
}


def test_every_flag_has_values_that_it_refuses() -> None:
    assert set(REFUSED) == set(FLAGS)


@pytest.mark.parametrize("flag, value", [(flag, value) for flag, values in REFUSED.items() for value in values])
def test_a_bad_value_is_refused_in_one_line_with_key_and_choices(flag, value) -> None:
    with pytest.raises(DesignError) as caught:
        Design(**{flag: value})
    message = str(caught.value)
    assert message.startswith(f"design.{flag}={value!r} ")
    assert WHAT_IS_ALLOWED.get(flag, "True, False") in message
    assert "\n" not in message


def test_replace_refuses_unknown_flags_and_checks_values() -> None:
    with pytest.raises(DesignError, match=r"unknown design flag 'kernel'; the flags are: depths, width, .*drop_path"):
        Design().replace(kernel=7)
    with pytest.raises(DesignError, match=r"design\.kernel_size=6"):
        Design().replace(kernel_size=6)


def test_defaults_are_resnet50_and_cannot_be_changed_in_place() -> None:
    design = Design()
    assert (design.depths, design.width, design.stem, design.groups, design.kernel_size) == (
        (3, 4, 6, 3),
        64,
        "resnet",
        1,
        3,
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        design.width = 96  # type: ignore[misc]


def test_equal_networks_are_equal_designs() -> None:
    assert Design(depths=[3, 3, 9, 3], width=96.0) == Design(depths=(3, 3, 9, 3), width=96)
    assert hash(Design(depths=[3, 3, 9, 3])) == hash(Design(depths=(3, 3, 9, 3)))


def test_every_flag_that_came_later_says_what_older_networks_were_and_still_is_by_default() -> None:
    later = ("early_stride", "pooled_shortcut", "squeeze_excite", "grn", "dropout")
    assert {flag: getattr(Design(), flag) for flag in later} == BEFORE


def test_stage_widths_are_rounded_one_by_one() -> None:
    design = Design(width=10.3)
    assert [design.stage_width(i) for i in range(4)] == [10, 21, 41, 82]
    assert design.block_channels(1) == (84, 21)
    assert design.replace(inverted=True).block_channels(1) == (21, 84)


@given(depths=st.lists(st.integers(1, 40), min_size=1, max_size=6), rate=st.floats(0, 0.99))
def test_stochastic_depth_rises_linearly_from_zero(depths, rate) -> None:
    rates = Design(depths=depths, drop_path=rate).drop_rates()
    assert len(rates) == sum(depths)
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(rate if len(rates) > 1 else 0)
    gaps = {round(b - a, 9) for a, b in itertools.pairwise(rates)} or {0}
    assert max(gaps) - min(gaps) < 1e-8
