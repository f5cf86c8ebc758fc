"""`Ladder`: one row per step, in ladder order, with means, gains, intervals, verdicts and the published numbers.

Runs and the published numbers give the same table, so every figure and page is drawn from either.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis import stats
from analysis.gains import (
    DIVERGED,
    FAILED,
    FINISHED,
    HALF,
    MISSING,
    NO_EFFECT,
    PARTIAL,
    equal_variance_of,
    means_of,
    with_gains,
    with_sensitivity,
)
from analysis.groups import Group
from analysis.idle import no_effects
from analysis.published import nan, with_difference_intervals, with_published
from analysis.speeds import NO_SPEEDS, REGIME, SIZE, SWIN, Speeds
from roadmap import complexity_of, paper
from roadmap.effects.noise import Means
from roadmap.resolve import design_for
from roadmap.steps import DEFAULT, Roadmap, Step

_RUN_COLUMNS = ["step", "seed", "top1", "eval_size"]
AVERAGED = "Top-1 of the averaged weights (EMA), as published, where a change asks for them: "


@dataclass(frozen=True)
class Ladder:
    """A ladder as a table and the estimates behind it.

    Attributes:
        table: a row per step, see `COLUMNS`; NaN or "" where a step has no number.
        title: what was trained, in words.
        regime: "tiny", "base", "micro".
        road: the roadmap whose steps are the rows.
        means: estimated means of the steps in `cells`, with their pooled noise; None without any number.
        cells: step -> index into `means`.
        is_paper: True for the published numbers.
        blocked: True if the model holds an effect per seed (runs of a step share their seeds with the other steps).
        notes: footnotes that belong under every drawing of this ladder.
        reference: the published row of the network that it compares with (Swin), if there is one.
        equal_variance: tests of one noise level for all steps.
        reference_speed: its measured training images per second, NaN where nobody measured it.
    """

    table: pd.DataFrame
    title: str
    regime: str
    road: Roadmap
    means: Means | None
    cells: dict[str, int]
    is_paper: bool = False
    blocked: bool = False
    notes: tuple[str, ...] = ()
    reference: paper.PaperRow | None = None
    reference_speed: float = math.nan
    equal_variance: stats.EqualVariance = stats.UNTESTED

    def row(self, step: str) -> pd.Series:
        """The row of one step."""
        return self.table.set_index("step", drop=False).loc[step]

    @property
    def measured(self) -> pd.DataFrame:
        """The rows that have a top-1."""
        return self.table[self.table["top1"].notna()]

    @property
    def sigma(self) -> float:
        """Standard deviation of one run around step + seed, in points; NaN where it cannot be estimated."""
        return math.nan if self.means is None or self.means.df < 1 else float(self.means.sigma)

    @property
    def tests(self) -> int:
        """How many gains are judged together."""
        return int(self.table["p"].notna().sum())

    @property
    def publication(self) -> str:
        """What published the numbers, in a word: "paper", or "publication" where it is none."""
        return publication_of(self.road)


def publication_of(road: Roadmap) -> str:
    """What published a roadmap's numbers, in a word."""
    return "paper" if "arXiv" in road.source else "publication"


def recipe_steps(road: Roadmap) -> tuple[str, ...]:
    """The steps that only choose another recipe."""
    return tuple(step.name for step in road.steps if step.parent is not None and not step.delta)


def ladder_of(group: Group) -> Ladder:
    """The ladder of a group of runs."""
    road = group.road
    finished = group.runs[(group.runs["status"] == FINISHED) & group.runs["step"].notna()]
    means, cells, blocked = means_of(finished, "step")
    idle = no_effects(group)
    rows = [_measured_row(step, group, idle) for step in road.steps]
    table = with_published(with_gains(_frame(rows), means, cells), road, group.regime)
    table = with_difference_intervals(table, means, cells, road, group.regime)
    table["label"] = [_own_label(label, road, group.regime) for label in table["label"]]
    notes = [note.format(**dict(zip(table["step"], table["label"], strict=True))) for note in idle.values()]
    averaged = table[table["averaged"]]["label"]
    if len(averaged):
        notes.append(AVERAGED + f"{', '.join(averaged)}.")
    table = with_sensitivity(table.drop(columns="averaged"), finished)
    reference = _reference(road, group.regime)
    whole = finished[finished["step"].isin(table.loc[table["diverged"] == 0, "step"])]
    return Ladder(
        table=table,
        title=group.title,
        regime=group.regime,
        road=road,
        means=means,
        cells=cells,
        blocked=blocked,
        notes=tuple(notes),
        reference=reference,
        equal_variance=equal_variance_of(whole, "step"),
    )


def paper_ladder(regime: str, speeds: Speeds = NO_SPEEDS, road: Roadmap = DEFAULT) -> Ladder:
    """The published numbers of a roadmap in one of its regimes as a ladder, with the speeds of one's own device."""
    known = speeds if regime == REGIME else NO_SPEEDS
    published = {row.step: row for row in road.rows if row.regime == regime and not row.is_reference}
    rows = []
    for step in (step for step in road.steps if step.name in published):
        row = published[step.name]
        cost = complexity_of(design_for(step.changes, regime), image_size=road.image_size)
        gmacs = cost.gmacs if row.gflops_counted is None else row.gflops_counted
        numbers = {"top1": row.top1, "std": nan(row.top1_std), "n": row.seeds or 1, "gmacs": gmacs}
        numbers |= {"params": cost.params, "images_per_second": known.of.get(step.name, math.nan)}
        parent = next((name for name in _ancestors(step, road) if name in published), None)
        rows.append(_blank(step) | numbers | {"status": FINISHED, "parent": parent})
    frame = _frame(rows)
    means = stats.means_from_summary(frame["top1"], frame["std"], frame["n"])
    cells = {name: index for index, name in enumerate(frame["step"])}
    table = with_published(with_gains(frame, means, cells), road, regime)
    table = with_sensitivity(table, pd.DataFrame(columns=_RUN_COLUMNS))
    reference = _reference(road, regime)
    notes = _published_notes(road, regime)
    if known.of:
        notes = (*notes, f"Images per second: measured, {SIZE} px, {known.where}.")
    title = f"the {publication_of(road)}, ImageNet-1K, {where(road, regime)}"
    speed = known.of.get(SWIN, math.nan)
    return Ladder(table, title, regime, road, means, cells, True, False, notes, reference, speed)


def _ancestors(step: Step, road: Roadmap) -> Iterator[str]:
    """The steps below a step, the nearest first: not all of them need to have been published."""
    while step.parent is not None:
        yield step.parent
        step = road.by_name[step.parent]


def where(road: Roadmap, regime: str) -> str:
    """Which of a roadmap's published ladders, in words."""
    reference, root = _reference(road, regime), road.row(road.root.name, regime)
    if reference and root:
        return f"{root.label.split(' (')[0]} / {reference.label} regime"
    return f"regime {regime}"


def _published_notes(road: Roadmap, regime: str) -> tuple[str, ...]:
    rows = [row for row in road.rows if row.regime == regime]
    moved = [row.label for row in rows if row.gflops != row.gflops_counted]
    notes = []
    if moved:
        notes.append(
            f"GFLOPs as counted; the {publication_of(road)}'s table prints other values for {', '.join(moved)}."
        )
    if any(row.gflops is None for row in rows):
        notes.append(f"GFLOPs are counted at {road.image_size} px where none were published.")
    return tuple(notes)


def _own_label(label: str, road: Roadmap, regime: str) -> str:
    """A published label for a run of one's own: our first row is trained, and micro is neither ResNet-50 nor -T."""
    label = label.replace("(PyTorch)", "(original recipe)")
    if label == "ResNet-200":
        label += " (original recipe)"
    if regime not in road.regimes:
        label = label.replace("ResNet-50", "ResNet").replace("ConvNeXt-T", "ConvNeXt")
    return label


def _reference(road: Roadmap, regime: str) -> paper.PaperRow | None:
    return next((row for row in road.rows if row.regime == regime and row.is_reference), None)


def _blank(step: Step) -> dict[str, object]:
    """The row of a step before any number is known."""
    row = next((row for row in paper.rows(step.roadmap) if row.step == step.name), None)
    numbers = ("top1", "std", "top1_best", "gmacs", "params", "images_per_second", "sampling_error")
    return {
        "step": step.name,
        "label": step.label,
        "section": step.section,
        "parent": step.parent,
        "on_path": step.on_path,
        "adopted": row.adopted if row else True,
        "status": MISSING,
        "n": 0,
        "diverged": 0,
        **dict.fromkeys(numbers, math.nan),
    }


def _measured_row(step: Step, group: Group, idle: dict[str, str]) -> dict[str, object]:
    """Counts, means and costs of one step's runs. Its parent is the step before it that has an effect."""
    row = _blank(step)
    while row["parent"] in idle:
        row["parent"] = group.road.by_name[str(row["parent"])].parent
    runs = group.runs[group.runs["step"] == step.name]
    row["averaged"] = bool((runs["averaged"] == 1).any())
    finished = runs[runs["status"] == FINISHED]
    unfinished = [item.state for item in group.unfinished if item.step == step.name]
    row["n"], row["diverged"] = len(finished), int((runs["status"] == DIVERGED).sum())
    if step.name in idle:
        row["status"] = NO_EFFECT
    elif len(finished):
        row["status"] = PARTIAL if row["diverged"] or unfinished else FINISHED
        row["top1"], row["std"] = finished["top1"].mean(), finished["top1"].std() if len(finished) > 1 else math.nan
        row["top1_best"] = finished["top1_best"].mean()
        row["images_per_second"] = finished["images_per_second"].median()
        if finished["eval_size"].notna().all():
            row["sampling_error"] = stats.sampling_error(finished["top1"].mean(), int(finished["eval_size"].iloc[0]))
    else:
        states = [DIVERGED] * bool(row["diverged"]) + [state for state in (FAILED, HALF) if state in unfinished]
        row["status"] = states[0] if states else MISSING
    if len(runs):
        row["gmacs"], row["params"] = runs["gmacs_224"].iloc[0], runs["params_1k"].iloc[0]
    return row


def _frame(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    frame.insert(0, "order", range(len(frame)))
    return frame
