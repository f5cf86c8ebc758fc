"""The regimes of `conf/regime/`: where a ladder starts and the sizes that its steps set."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from roadmap.errors import DesignError

CONF = Path(__file__).resolve().parent.parent / "conf"
REGIMES = tuple(sorted((path.stem for path in (CONF / "regime").glob("*.yaml")), key=("tiny base micro").find))


@cache
def regime(name: str) -> Mapping[str, Any]:
    """The values of one regime file.

    Raises:
        DesignError: there is no such regime.
    """
    if name not in REGIMES:
        raise DesignError(f"regime={name!r} is not one of: {', '.join(REGIMES)}")
    values: Mapping[str, Any] = yaml.safe_load((CONF / "regime" / f"{name}.yaml").read_text())
    return values
