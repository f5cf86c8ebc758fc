"""Which runs belong together: one ladder is one regime, data set, budget and setting of the recipes."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.attribution.single import technique_between, techniques_off
from analysis.collect import Collection, Skipped
from analysis.records import COLUMNS, bare
from experiments.config.settings import LONGEST_NAME
from experiments.errors import ConfigError
from roadmap.steps import Roadmap

SETTINGS = ("design", "recipe", "budget", "data", "batch", "versions")


def ladder_recipes(road: Roadmap) -> tuple[str, ...]:
    """The recipes of a roadmap's rows, that of its end first."""
    return tuple(dict.fromkeys(step.recipe for step in (road.end, *reversed(road.steps))))


@dataclass(frozen=True)
class Group:
    """Runs that may be compared with each other: at most one configuration per (recipe, set of changes).

    Attributes:
        name: folder name, unique among the groups of one collection.
        title: the same in words.
        road: the roadmap whose ladder it is.
        runs: rows of the collection; `step` is None off the ladder.
        other: runs of the same regime, data and budget under other settings (typed flags, single techniques off, say).
        unfinished: what was skipped and names this regime, data and budget.
        settings: nested settings of one run of the last step's recipe.
    """

    name: str
    title: str
    regime: str
    data: str
    budget: str
    profile: str
    road: Roadmap
    runs: pd.DataFrame
    other: pd.DataFrame
    unfinished: tuple[Skipped, ...]
    settings: Mapping[str, Any]

    @property
    def matched(self) -> bool:
        """Whether every network has its own width (match_gmacs)."""
        return bool(self.runs.iloc[0]["matched"])

    @property
    def everything(self) -> pd.DataFrame:
        """Its runs, then the others."""
        return pd.concat([self.runs, self.other], ignore_index=True) if len(self.other) else self.runs

    @property
    def idle(self) -> frozenset[str]:
        """The changes that have nothing to do in these runs."""
        return frozenset(change for text in self.runs["idle"].unique() for change in text.split("+") if change)

    @property
    def steps(self) -> int:
        """How many ladder steps have at least one sealed run."""
        return int(self.runs["step"].nunique())


def select(collection: Collection, conditions: Sequence[str]) -> pd.DataFrame:
    """The runs that meet every `key=value`; key is a column or a dotted setting such as recipe.lr or data.checksum.

    Raises:
        ConfigError: a malformed condition or an unknown key.
    """
    runs = collection.runs
    for condition in conditions:
        key, equals, value = condition.partition("=")
        if not equals or not key:
            raise ConfigError(f"--select {condition!r} must be key=value, e.g. data=fashion_mnist")
        if key in COLUMNS:
            chosen = runs[key].map(lambda item, value=value: _same(item, value))
        elif key.split(".")[0] in SETTINGS and "." in key:
            hit = {name: _same(_dig(collection.settings_of(name), key), value) for name in runs["settings"].unique()}
            chosen = runs["settings"].map(hit)
        else:
            columns = ", ".join(name for name in COLUMNS if name not in ("path", "settings"))
            raise ConfigError(f"--select {key}: no such key; there is {columns}, and {', '.join(SETTINGS)} with a dot")
        runs = runs[chosen.astype(bool)]
    return runs.reset_index(drop=True)


def _dig(value: Any, key: str) -> Any:
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _same(item: Any, text: str) -> bool:
    """Whether a recorded value is what was typed: as text, as a number, null for missing, the start of a long id."""
    if item is None or item != item:
        return text.lower() in ("null", "none")
    if isinstance(item, bool | list | dict):
        return json.dumps(item, separators=(",", ":")) == text.replace(" ", "")
    if isinstance(item, str):
        return item == text or (len(text) >= 8 and item.startswith(text))
    try:
        return float(item) == float(text)
    except ValueError:
        return False


def groups_of(collection: Collection, runs: pd.DataFrame | None = None) -> tuple[list[Group], list[Skipped]]:
    """All groups, the one with most steps (then most runs) first, and the runs that belong to none.

    A ladder may need two recipes. Where one recipe was trained in several settings, each is a group of its own, and the
    other recipe's rows are those of its most-used setting. What a ladder does not average is in `Group.other`.
    """
    runs = collection.runs if runs is None else runs
    groups: list[Group] = []
    aside: list[Skipped] = []
    for _, family in runs.groupby(["regime", "profile"], sort=False):
        plain = (family["plain"] == 1) & (family["without"] == "")
        ladders = _ladders(family[plain], collection)
        for variants in ladders:
            inside = plain & family["variant"].isin(variants)
            chosen = _one_configuration(family[inside])
            groups.append(_group(collection, family.loc[chosen], family.drop(chosen)))
        if not ladders:
            why = "no run of a set of changes to compare it with; --compare shows it against other configurations"
            aside += [Skipped(run.path, "set aside", why, run.step, run.regime) for run in family.itertuples()]
    groups.sort(key=lambda group: (-group.steps, -len(group.runs), group.name))
    return _named_apart(groups), aside


def _ladders(family: pd.DataFrame, collection: Collection) -> list[tuple[str, ...]]:
    """Sets of variants (settings of a recipe) that make one ladder each, the most-used first.

    A variant of the other recipe with a technique more is no ladder of its own: it is an arm of a recipe study. Nor is
    a recipe that the roadmap does not have, beside one that it has, or a single configuration.
    """
    recipes = {
        variant: bare(collection.settings_of(key))["recipe"]
        for variant, key in family.drop_duplicates("variant")[["variant", "settings"]].itertuples(index=False)
    }
    by_recipe: dict[str, list[str]] = {}
    for recipe, variants in family.groupby("recipe", sort=False)["variant"]:
        counts = variants.value_counts()
        # of two settings that were used as often, the one with fewer techniques is the recipe itself
        ranked = sorted((-count, -techniques_off(recipes[variant]), variant) for variant, count in counts.items())
        by_recipe[str(recipe)] = [variant for *_, variant in ranked]
    present = [recipe for recipe in ladder_recipes(collection.road) if recipe in by_recipe]
    if not present:
        return [(variant,) for variants in by_recipe.values() for variant in variants]
    leading, partners = present[0], [by_recipe[recipe][0] for recipe in present[1:]]
    ladders = [(variant, *partners) for variant in by_recipe[leading]]
    rest = [
        variant
        for recipe in present[1:]
        for variant in by_recipe[recipe][1:]
        if not technique_between(recipes[by_recipe[recipe][0]], recipes[variant])
    ]
    sets = family.groupby("variant")["changes"].nunique()
    return ladders[:1] + [one for one in (*ladders[1:], *((variant,) for variant in rest)) if sets[one[0]] > 1]


def _one_configuration(runs: pd.DataFrame) -> pd.Index:
    """Where the runs of one config_id per (recipe, changes) stand: that with most. Others are not averaged in."""
    keys = ["recipe", "changes"]
    counts = runs.groupby([*keys, "config_id"], sort=True).size().sort_values(ascending=False, kind="stable")
    best = counts.reset_index().drop_duplicates(keys)["config_id"]
    return runs.index[runs["config_id"].isin(best)]


def _group(collection: Collection, runs: pd.DataFrame, other: pd.DataFrame) -> Group:
    runs, first = runs.reset_index(drop=True), runs.iloc[0]
    latest = runs[runs["recipe"] == ladder_recipes(collection.road)[0]]
    settings = collection.settings_of((latest if len(latest) else runs).iloc[0]["settings"])
    unfinished = tuple(
        item
        for item in collection.skipped
        if item.state in ("half done", "failed")
        and item.regime == first.regime
        # a run without a readable config is shown in every group that it could belong to
        and item.data in (None, first.data)
        and item.budget in (None, first.budget)
    )
    gmacs = f"{runs['gmacs_224'].median():.2g}" if first.matched else ""
    return Group(
        name=_folder_name(f"{first.regime}-{first.data}-{first.budget}" + (f"-{gmacs}-gmacs" if gmacs else "")),
        title=f"{first.data}, regime {first.regime}, budget {first.budget}"
        + (f", widths matched to {gmacs} GMACs" if gmacs else ""),
        regime=first.regime,
        data=first.data,
        budget=first.budget,
        profile=first.profile,
        road=collection.road,
        runs=runs,
        other=other.reset_index(drop=True),
        unfinished=unfinished,
        settings=settings,
    )


def _folder_name(name: str) -> str:
    """A name from records as that of a folder beside the report."""
    return re.sub(r"[^\w.+-]", "_", name).lstrip(".")[:LONGEST_NAME]


def _named_apart(groups: list[Group]) -> list[Group]:
    """Groups with distinct names: a second one of the same name gets the start of a hash of its settings."""
    seen: set[str] = set()
    apart = []
    for group in groups:
        settings = group.profile + group.runs["variant"].value_counts().index[0]
        mark = hashlib.sha256(settings.encode()).hexdigest()[:6]
        name = group.name if group.name not in seen else f"{group.name}-{mark}"
        title = group.title if name == group.name else f"{group.title} (settings {mark})"
        seen.add(name)
        apart.append(Group(**{**vars(group), "name": name, "title": title}))
    return apart


def second_regime(group: Group, groups: Sequence[Group]) -> Group | None:
    """The group of another regime on the same data and budget with most steps, for the figure's grey bars."""
    return next((other for other in groups if other.profile == group.profile and other.regime != group.regime), None)
