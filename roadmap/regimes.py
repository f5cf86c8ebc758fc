"""The regimes of `conf/regime/`: where a ladder starts and the sizes that its steps set."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from roadmap.errors import DesignError
from roadmap.files import found, read

_FIRST = ("tiny", "base", "micro")
REGIMES = (*_FIRST, *sorted(set(found("regime")) - set(_FIRST)))
_FROM_REGIME = re.compile(r"\$\{regime\.(\w+)\}")


@cache
def regime(name: str) -> Mapping[str, Any]:
    """The values of one regime file.

    Raises:
        DesignError: there is no such regime.
    """
    if name not in REGIMES:
        raise DesignError(f"regime={name!r} is not one of: {', '.join(REGIMES)}")
    return read(found("regime")[name])


def filled(value: Any, regime_name: str) -> Any:
    """A value of a YAML file with each "${regime.KEY}" in it replaced by that regime's."""
    if isinstance(value, Mapping):
        return {key: filled(item, regime_name) for key, item in value.items()}
    match = _FROM_REGIME.fullmatch(value) if isinstance(value, str) else None
    return regime(regime_name)[match[1]] if match else value


def stem_stride_in(name: str, stride: int = 4) -> int:
    """The stem stride of a regime's networks where the data asks for `stride`: 4 times that for isotropic networks."""
    return stride * int(regime(name).get("stem_factor", 1))
