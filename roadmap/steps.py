"""`ROADMAPS`: the published ladders, each a file of `roadmap/` that puts changes in an order; `STEPS`: ConvNeXt's.

A change is the same wherever it stands (`roadmap.changes`); a step is a row of one roadmap: the set of all changes up
to it. Roadmaps share changes, and so runs.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from roadmap import paper
from roadmap.changes import FILES, Change
from roadmap.errors import DesignError
from roadmap.files import found, read


@dataclass(frozen=True)
class Step:
    """One row of a ladder: the set of all changes up to it.

    Attributes:
        name: also the name of its file and of its change.
        parent: the step it builds on; None for the first.
        changes: names of all changes up to and including its own, in ladder order.
        recipe: the training recipe in force at this step.
        on_path: True if the ladder's end descends from it (kernel_9 is a side branch, kernel_7 is on the path).
        roadmap: the roadmap whose row it is.
    """

    name: str
    parent: str | None
    changes: tuple[str, ...]
    recipe: str
    on_path: bool
    roadmap: str = paper.DEFAULT

    @property
    def own(self) -> Change:
        """Its own change."""
        return FILES[self.name]

    @property
    def delta(self) -> dict[str, Any]:
        """What its own change sets, at the paper's main scale (regime tiny); empty for the two recipe steps."""
        return self.own.delta

    def delta_in(self, regime_name: str) -> dict[str, Any]:
        """What its own change sets in a regime."""
        return self.own.delta_in(regime_name)

    @property
    def _published(self) -> paper.PaperRow | None:
        return next((row for row in paper.rows(self.roadmap) if row.step == self.name), None)

    @property
    def label(self) -> str:
        """The published label (Figure 2); the name in words for a step that the publication does not have."""
        return self._published.label if self._published else self.name.replace("_", " ")

    @property
    def section(self) -> str:
        """The publication's section; "" for a step that it does not have."""
        return self._published.section if self._published else ""


@dataclass(frozen=True)
class Roadmap:
    """A published ladder, or one of one's own: steps in an order, and what was published of them.

    Attributes:
        name: of its file.
        title, source: what it is and who published it.
        recipe: that of its rows, where a step does not choose another.
        regimes: those in which its numbers were published, the main one first.
        image_size: side of the images, in pixels, with which they were.
        behind: the roadmap whose step of the same name its first step is, with all the changes that step has there.
        steps: its rows, breadth-first from the first one, siblings in natural order.
    """

    name: str
    title: str
    source: str
    recipe: str
    regimes: tuple[str, ...]
    image_size: int
    behind: str | None
    steps: tuple[Step, ...]

    @property
    def root(self) -> Step:
        """Where it starts: ResNet-50 for ConvNeXt's."""
        return self.steps[0]

    @cached_property
    def end(self) -> Step:
        """Where its path leads: ConvNeXt for ConvNeXt's."""
        return [step for step in self.steps if step.on_path][-1]

    @property
    def players(self) -> tuple[str, ...]:
        """The changes between its root and its end."""
        return tuple(name for name in self.end.changes if name not in self.root.changes)

    @cached_property
    def by_name(self) -> Mapping[str, Step]:
        """Its steps by name."""
        return {step.name: step for step in self.steps}

    @property
    def rows(self) -> tuple[paper.PaperRow, ...]:
        """Its published rows."""
        return paper.rows(self.name)

    def row(self, step: str, regime: str | None = None) -> paper.PaperRow | None:
        """The published row of a step in a regime (None: the main one), if there is one."""
        return paper.row(step, regime or self.regimes[0], self.name)

    def step_named(self, name: str) -> Step:
        """Its step of that name.

        Raises:
            DesignError: it has none; the message says where there is one, or lists its steps in ladder order.
        """
        if name in self.by_name:
            return self.by_name[name]
        others = [road.name for road in ROADMAPS.values() if name in road.by_name]
        if others:
            raise DesignError(f"step={name} is no step of roadmap={self.name}; it is one of roadmap={others[0]}")
        if name in FILES:
            raise DesignError(f"step={name} stands in no roadmap; add it to a step with add=[{name}]")
        raise DesignError(f"step={name!r} is not one of: {', '.join(self.by_name)}")


def _natural(name: str) -> list[Any]:
    """Sort key that puts kernel_5 before kernel_11."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _parents(path: Path, content: Mapping[str, Any], hung: set[str]) -> dict[str, str | None]:
    """Step -> the step it builds on: along the file's path, then its branches, then what step files hang on these.

    `hung` are the steps that hang on another roadmap already.

    Raises:
        DesignError: a step that has no file, or one that stands in two places.
    """
    along = list(content["steps"])
    links: list[tuple[str, str | None]] = list(zip(along, [None, *along], strict=False))
    links += [(name, parent) for parent, names in (content.get("branches") or {}).items() for name in names]
    for name, parent in links:
        unknown = next((one for one in (name, parent) if one is not None and one not in FILES), None)
        if unknown:
            near = get_close_matches(unknown, FILES, n=1)
            raise DesignError(f"{path}: there is no file step/{unknown}.yaml{f'; is it {near[0]}?' if near else ''}")
        if [one for one, _ in links].count(name) > 1:
            raise DesignError(f"{path}: {name} stands in it twice")
    placed = dict(links)
    free = [file for file in FILES.values() if file.name not in placed and file.name not in hung]
    while hanging := {file.name: file.parent for file in free if file.parent in placed and file.name not in placed}:
        placed |= hanging
        hung |= set(hanging)
    return placed


def _ladder_order(parents: Mapping[str, str | None]) -> Iterator[str]:
    """Breadth-first over the parent links, siblings in natural order."""
    level = [name for name, parent in parents.items() if parent is None]
    while level:
        yield from level
        level = [child for name in level for child in sorted((n for n in parents if parents[n] == name), key=_natural)]


def _steps(content: Mapping[str, Any], parents: Mapping[str, str | None], recipe: str) -> Iterator[Step]:
    """The rows of a roadmap in ladder order."""
    behind = content.get("behind")
    steps: dict[str, Step] = {}
    for name in _ladder_order(parents):
        own, parent = FILES[name], parents[name]
        before = steps[parent].changes if parent else _load(behind).step_named(name).changes if behind else ()
        changes = (*before, name) if own.raw and name not in before else before
        inherited = steps[own.parent].recipe if own.parent in steps else recipe
        steps[name] = Step(name, parent, changes, own.recipe or inherited, name in content["steps"], content["name"])
        yield steps[name]


_loaded: dict[str, Roadmap] = {}
_hung: set[str] = set()


def _load(name: str) -> Roadmap:
    """The roadmap of one file, read once.

    Raises:
        DesignError: there is no such file, or something is missing or wrong in it.
    """
    if name not in _loaded:
        if name not in found("roadmap"):
            raise DesignError(f"roadmap={name!r} is not one of: {', '.join(found('roadmap'))}")
        path = found("roadmap")[name]
        content = read(path).get("roadmap") or {}
        defaults = read(path).get("defaults") or ()
        chosen = [entry["override /recipe"] for entry in defaults if "override /recipe" in entry]
        missing = next((key for key in ("title", "source", "steps") if not content.get(key)), None)
        if missing or content.get("name") != name or not chosen:
            wanted = missing or ("name" if content.get("name") != name else "override /recipe")
            raise DesignError(f"{path} must hold {wanted}: see conf/roadmap/{paper.DEFAULT}.yaml")
        steps = tuple(_steps(content, _parents(path, content, _hung), chosen[0]))
        regimes, side = tuple(content.get("regimes") or ("tiny",)), int(content.get("image_size") or 224)
        _loaded[name] = Roadmap(
            name, content["title"], content["source"], chosen[0], regimes, side, content.get("behind"), steps
        )
    return _loaded[name]


ROADMAPS = {
    name: _load(name) for name in (paper.DEFAULT, *(name for name in found("roadmap") if name != paper.DEFAULT))
}
DEFAULT = ROADMAPS[paper.DEFAULT]
STEPS, START, END = DEFAULT.steps, DEFAULT.root, DEFAULT.end  # ResNet-50 to ConvNeXt
BY_NAME = DEFAULT.by_name
_IN_LADDERS = dict.fromkeys(change for road in ROADMAPS.values() for step in road.steps for change in step.changes)
# Every change there is: in the order of the default roadmap, then of the others by name, then those that stand in none.
CHANGES = (*_IN_LADDERS, *sorted((f.name for f in FILES.values() if f.raw and f.name not in _IN_LADDERS), key=_natural))

ROOTS = tuple(road.root.name for road in ROADMAPS.values() if road.root.name in road.root.changes and not road.behind)


def roadmap_named(name: str) -> Roadmap:
    """The roadmap of that name.

    Raises:
        DesignError: there is no such roadmap; the message lists them.
    """
    if name not in ROADMAPS:
        raise DesignError(f"roadmap={name!r} is not one of: {', '.join(ROADMAPS)}")
    return ROADMAPS[name]


def step_named(name: str, roadmap: str = paper.DEFAULT) -> Step:
    """The step of that name in a roadmap; DesignError as `Roadmap.step_named` says."""
    return roadmap_named(roadmap).step_named(name)


def in_order(changes: Iterable[str], road: Roadmap = DEFAULT) -> tuple[str, ...]:
    """These changes in the order of a roadmap; those that it does not have behind, in the order of their own.

    What a roadmap starts from is first wherever it is: any change may set anew what it sets.
    """
    own = dict.fromkeys([*ROOTS, *(change for step in road.steps for change in step.changes)])
    order = {name: place for place, name in enumerate((*own, *(name for name in CHANGES if name not in own)))}
    return tuple(sorted(set(changes), key=order.__getitem__))


@cache
def alternatives(name: str) -> frozenset[str]:
    """The changes that give one of its keys another value and do not follow it: kernel_5 and kernel_9 for kernel_7."""
    return frozenset(other for other in CHANGES if other != name and _clash(name, other) and not _follow(name, other))


def _clash(name: str, other: str) -> bool:
    mine, theirs = FILES[name].delta, FILES[other].delta
    return any(theirs[key] != value for key, value in mine.items() if key in theirs)


@cache
def before(name: str) -> frozenset[str]:
    """The changes that stand before it in some roadmap."""
    rows = (road.by_name[name] for road in ROADMAPS.values() if name in road.by_name)
    return frozenset(change for row in rows for change in row.changes if change != name)


def _follow(name: str, other: str) -> bool:
    return bool({name, other} & set(ROOTS)) or other in before(name) or name in before(other)
