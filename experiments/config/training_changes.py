"""What the changes of a set do to the training: keys of the recipe and of the batch, at the size of the budget.

Precedence: command line > the data's limits > changes > the budget's overlay > recipe. A change says what was
published. In a budget of fewer epochs its epochs shrink as the recipe's do, its rate in the same proportion; a batch
that the budget fixes stays; and what its overlay lists under `instead` stands in for a change's own value.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from experiments.config.settings import Recipe
from experiments.errors import ConfigError
from roadmap.changes import FILES
from roadmap.files import found, read
from roadmap.regimes import filled

IN_EPOCHS = {"epochs": int, "warmup_epochs": float, "decay_every": int}
Keys = dict[str, Any]  # dotted keys: recipe.epochs, batch.size


class Trained(NamedTuple):
    """The training keys of a set.

    Attributes:
        values: what they are, for every key that a change of the set gets through to.
        replaced: what these keys would be without the changes.
        idle: changes, of those that were asked about, to none of whose keys the run leaves a say.
    """

    values: Keys
    replaced: Keys
    idle: tuple[str, ...]


def trained(config: Mapping[str, Any], changes: Iterable[str], others: Iterable[str], typed: Iterable[str]) -> Trained:
    """Find out what a set of changes makes of the training.

    Args:
        config: the composed config, without the changes' own training keys.
        changes: the set, in its order.
        others: further changes of which it is asked whether this run would leave them anything to do.
        typed: keys that the user typed.

    Raises:
        ConfigError: a change sets a key that does not exist.
    """
    fixed = set(typed) | _limited(config["data"]["name"])
    regime, budget = config["regime"]["name"], _Budget.of(config)
    fixed |= budget.fixes
    asked = list(dict.fromkeys(changes))
    values: Keys = {}
    for name in asked:
        _check_keys(name, regime, config)
        values |= _through(name, regime, budget, fixed)
    idle = [
        name
        for name in dict.fromkeys((*asked, *others))
        if FILES[name].raw and not FILES[name].design_in(regime) and _is_idle(name, regime, budget, fixed)
    ]
    replaced = {key: _value(config, key) for key in values}
    return Trained(values, replaced, tuple(idle))


def _check_keys(name: str, regime: str, config: Mapping[str, Any]) -> None:
    for key in _training(name, regime):
        section, _, leaf = key.partition(".")
        if leaf not in config[section] or leaf in ("name", "without", "lr"):
            raise ConfigError(f"step {name}: {key} is not a key that a change may set")


def _value(config: Mapping[str, Any], key: str) -> Any:
    section, _, leaf = key.partition(".")
    return config[section][leaf]


def _through(name: str, regime: str, budget: "_Budget", fixed: set[str]) -> Keys:
    """The training keys of a change that nothing stronger fixes, at the size of the budget."""
    return {key: value for key, value in budget.sized(_training(name, regime)).items() if key not in fixed}


def _is_idle(name: str, regime: str, budget: "_Budget", fixed: set[str]) -> bool:
    """Whether all that a change sets is fixed otherwise, or is what the budget puts in its place anyway."""
    return all(key.partition(".")[2] in budget.neutral for key in _through(name, regime, budget, fixed))


def _training(name: str, regime: str) -> Keys:
    return {key: value for key, value in FILES[name].delta_in(regime).items() if "." in key}


def _limited(data: str) -> set[str]:
    """The recipe's keys that a data file fixes because another value would not keep the labels."""
    return {f"recipe.{key}" for key in _file("data", data).get("recipe", {})}


def _file(group: str, name: str) -> Mapping[str, Any]:
    path = found(group).get(name)
    return read(path) if path else {}


class _Budget(NamedTuple):
    """How a budget shrinks what was published: the recipe's own keys in its file and in the budget's overlay."""

    published: Keys
    own: Keys
    fixes: set[str]
    instead: Keys

    @property
    def neutral(self) -> set[str]:
        """The keys to which it gives, in place of whatever a change sets, what they are without a change."""
        whole = {item.name: item.default for item in dataclasses.fields(Recipe)} | self.published | self.own
        return {key for key, value in self.instead.items() if value == whole.get(key)}

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "_Budget":
        """The chosen budget for the chosen recipe."""
        recipe, regime = config["recipe"]["name"], config["regime"]["name"]
        overlay = filled(_file("overlay", f"{config['budget']['name']}_{recipe}"), regime)
        return cls(
            filled(_file("recipe", recipe), regime).get("recipe", {}),
            overlay.get("recipe", {}),
            {f"batch.{key}" for key in overlay.get("batch", {})},
            overlay.get("instead", {}),
        )

    def sized(self, published: Keys) -> Keys:
        """The training keys of a change, as published, at the size of this budget."""
        keys = {key: self._sized(key.partition(".")[2], value) for key, value in published.items()}
        if "recipe.base_lr" in keys and "base_lr" in self.own:
            changed = self.published | {key.partition(".")[2]: value for key, value in published.items()}
            keys["recipe.base_lr"] = self.own["base_lr"] * _per_image(changed) / _per_image(self.published)
            keys.pop("recipe.lr_batch", None)
        return keys

    def _sized(self, leaf: str, value: Any) -> Any:
        if leaf in self.instead and value is not None:
            return self.instead[leaf]
        if leaf in IN_EPOCHS and "epochs" in self.own:
            share = value * self.own["epochs"] / self.published["epochs"]
            return max(1, round(share)) if IN_EPOCHS[leaf] is int else share
        return value


def _per_image(recipe: Keys) -> float:
    """The peak rate per image of the batch."""
    return float(recipe["base_lr"]) / int(recipe["lr_batch"])
