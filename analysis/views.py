"""What one page shows: a ladder beside the paper's, from runs or from the paper alone, and its figures."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.attribution.game import Effects
from analysis.attribution.kernels import kernel_curves
from analysis.attribution.study import Attribution, attribution_of
from analysis.collect import Collection, collect
from analysis.figures.attribution import effects_figure, interactions_figure, positions_figure
from analysis.figures.curves import curves_figure
from analysis.figures.dots import dots_figure
from analysis.figures.gains import gains_figure
from analysis.figures.kernels import context_curve, has_kernels, kernels_figure, ladder_curve
from analysis.figures.roadmap import roadmap_figure
from analysis.figures.tradeoff import METRICS, has_metric, tradeoff_figure
from analysis.further import Further, further_of
from analysis.groups import Group, groups_of, second_regime
from analysis.ladder import Ladder, ladder_of, paper_ladder
from analysis.records import bare
from analysis.speeds import NO_SPEEDS, Speeds
from experiments.store.run_dir import RunDir, read_lines
from experiments.strict_json import number
from roadmap.seals import check
from roadmap.steps import DEFAULT, Roadmap

MOST_EPOCHS = 100_000  # as recipe.epochs
MOST_CONTEXTS = 16  # more fill no figure; the page's table has all


@dataclass(frozen=True)
class View:
    """A ladder with everything that is drawn beside it. `group` is None for the paper's own numbers."""

    name: str
    title: str
    ladder: Ladder
    second: Ladder | None
    paper: Ladder | None
    paper_second: Ladder | None
    caption: str
    group: Group | None = None
    curves: pd.DataFrame | None = None
    attribution: Attribution | None = None
    further: Further | None = None

    @property
    def labels(self) -> dict[str, str]:
        """Step -> its label in this ladder, in ladder order."""
        return dict(zip(self.ladder.table["step"], self.ladder.table["label"], strict=True))


@dataclass(frozen=True)
class Named:
    """A figure to draw in any size: its file name, what it shows, and the function that draws it."""

    name: str
    title: str
    draw: Callable[[str], Figure]


def published_ladders(road: Roadmap, speeds: Speeds = NO_SPEEDS) -> dict[str, Ladder]:
    """The published ladders of a roadmap by regime, the main one first; {} where nothing was published."""
    known = dict.fromkeys(row.regime for row in road.rows)
    return {regime: paper_ladder(regime, speeds, road) for regime in road.regimes if regime in known}


def paper_views(speeds: Speeds = NO_SPEEDS, road: Roadmap = DEFAULT) -> list[View]:
    """The published numbers of a roadmap, the main regime first, each with the other regime behind it."""
    ladders = published_ladders(road, speeds)
    views = []
    for regime, ladder in ladders.items():
        second = next((other for name, other in ladders.items() if name != regime), None)
        caption = (
            f"Published numbers: {road.source}. Top-1 on ImageNet-1K at {road.image_size} px. Axes of accuracy do not "
            "start at 0. "
        )
        views.append(
            View(f"paper-{regime}", ladder.title, ladder, second, None, None, caption + " ".join(ladder.notes))
        )
    return views


def views_of(collection: Collection, groups: list[Group], speeds: Speeds = NO_SPEEDS) -> list[View]:
    """A view per group of runs, in the groups' order."""
    ladders = {group.name: ladder_of(group) for group in groups}
    published = published_ladders(collection.road, speeds)
    views = []
    for group in groups:
        other = second_regime(group, groups)
        regime = group.regime if group.regime in published else next(iter(published), "")
        views.append(
            View(
                name=group.name,
                title=group.title,
                ladder=ladders[group.name],
                second=ladders[other.name] if other else None,
                paper=published.get(regime),
                paper_second=next((p for name, p in published.items() if name != regime), None),
                caption=_caption(group),
                group=group,
                curves=_curves(collection.source, group),
                attribution=attribution_of(group, ladders[group.name], collection),
                further=further_of(group, ladders[group.name], collection),
            )
        )
    return views


def load(source: str | Path = "paper", road: Roadmap = DEFAULT) -> list[View]:
    """The views of a folder of runs, the fullest first; the published ones for "paper" and where nothing ran yet.

    Raises:
        StorageError: `source` is neither "paper" nor a folder.
    """
    if source == "paper":
        return paper_views(road=road)
    collection = collect(source, road=road)
    return views_of(collection, groups_of(collection)[0]) or paper_views(road=road)


def _caption(group: Group) -> str:
    """What was trained: data, recipe and the settings that differ between the paper's text and its code."""
    without = bare(group.settings)
    recipe, design, root = without["recipe"], without["design"], group.road.root
    rows = group.runs[group.runs["step"].notna()]
    epochs = sorted({int(value) for value in (rows if len(rows) else group.runs)["epochs"]})
    length = str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    scale = design.get("layer_scale")
    original = f"; the first row has the {root.recipe} recipe" if root.recipe != group.road.end.recipe else ""
    averaged = (group.runs["averaged"] == 1) & group.runs["step"].notna()
    top1 = "averaged weights (EMA) where a step asks for them" if averaged.any() else ""
    return (
        f"These runs: {group.title}. Recipe {recipe['name']}, {length} epochs, layer scale "
        f"{'off' if scale is None else f'{scale:g}'}, drop path {design.get('drop_path') or 0:g}{original}. "
        f"Top-1 of the last epoch{', of the ' * bool(top1)}{top1}. Axes of accuracy do not start at 0."
    )


def _curves(source: Path, group: Group) -> pd.DataFrame | None:
    """Top-1 by step and epoch, the mean over seeds; None where no run left its metrics."""
    runs = group.runs[group.runs["step"].notna() & (group.runs["status"] == "finished")]
    rows: list[tuple[str, float, float]] = []
    for run in runs.itertuples():
        try:
            metrics = RunDir(source / run.path).metrics
            check(metrics)
            lines = read_lines(metrics)
        except (ValueError, OSError):
            continue  # the curve is a picture beside the result; the result itself is whole
        for line in lines:
            epoch, top1 = (
                number(line, "epoch", 0, MOST_EPOCHS),
                number(line, "top1_ema" if run.averaged else "top1", 0, 100),
            )
            if epoch is not None and top1 is not None:
                rows.append((run.step, epoch, top1))
    frame = pd.DataFrame(rows, columns=["step", "epoch", "top1"])
    return frame.groupby(["step", "epoch"], as_index=False).mean() if len(frame) else None


def figures_of(view: View) -> Iterator[Named]:
    """The figures that this view has the numbers for, the ladder first."""
    ladder, published, caption = view.ladder, view.paper, view.caption

    def ladder_figure(size: str) -> Figure:
        beside = {"second": view.second, "paper": published, "paper_second": view.paper_second}
        return roadmap_figure(ladder, **beside, caption=caption, size=size)

    beside = f", the {ladder.publication} beside it" if published else ""
    yield Named("ladder", f"The roadmap: a bar per step, its GFLOPs{beside}", ladder_figure)
    if ladder.table["gain"].notna().any():
        text = caption.split(" Axes")[0] + " Intervals: 95 %, noise pooled over the ladder."
        yield Named(
            "gains", "Gain of each step", lambda size: gains_figure(ladder, paper=published, caption=text, size=size)
        )
    for metric in METRICS:
        if has_metric(ladder, metric):
            name = f"accuracy-{metric.replace('_', '-')}"
            yield Named(name, f"Accuracy against {METRICS[metric][0].split(' (')[0]}", _tradeoff(view, metric))
    named = {} if ladder.is_paper else {"these runs": ladder_curve(ladder)}
    for one in (ladder, view.second, published, view.paper_second):
        if one is not None and one.is_paper:
            named[f"the {one.publication}, {one.title.split(', ')[-1]}"] = ladder_curve(one)
    if has_kernels(ladder):
        yield Named(
            "kernels", "Kernel sizes", lambda size: kernels_figure(named, caption=caption.split(" Axes")[0], size=size)
        )
    curves = view.curves
    if curves is not None:
        yield Named("curves", "Training curves", lambda size: curves_figure(ladder, curves, caption=caption, size=size))
    if view.attribution is not None:
        yield from _attribution_figures(view, view.attribution, caption.split(" Axes")[0])
    further = view.further
    if further is not None and further.shown is not None:
        shown, text = further.shown, f"{caption.split(' Axes')[0]} Intervals: 95 %, noise pooled."
        yield Named("further", "Further configurations", lambda size: dots_figure(shown, caption=text, size=size))


def _attribution_figures(view: View, found: Attribution, caption: str) -> Iterator[Named]:
    """Figures of what sets of changes say: only those whose runs are there."""
    labels = view.labels
    if found.effects:
        text = f"{caption} Intervals: 95 %."
        yield Named(
            "attribution",
            "Each change by itself",
            lambda size: effects_figure(found.effects, labels, caption=text, size=size),
        )
    pairs, positions, contexts = found.pairs, found.positions, found.contexts
    if pairs is not None:
        text = f"{caption} Interactions {found.pairs_how}; bold: Holm-adjusted p below 5 %."
        yield Named(
            "interactions",
            "Interactions of pairs",
            lambda size: interactions_figure(pairs, found.paired, labels, caption=text, size=size),
        )
    if positions is not None:
        yield Named(
            "positions",
            "Gain by position",
            lambda size: positions_figure(positions, labels, caption=caption, size=size),
        )
    if contexts is not None and len(contexts.names) <= MOST_CONTEXTS:
        what = "both − one − other + neither (points)"
        yield Named(
            "contexts",
            "Pairs in their contexts",
            lambda size: effects_figure({"": contexts}, {}, what=what, caption=caption, size=size),
        )
    kernels = {curve.name: context_curve(curve) for curve in kernel_curves(found.game)}
    if kernels:
        yield Named(
            "kernel-contexts",
            "Kernel sizes in several networks",
            lambda size: kernels_figure(kernels, caption=f"{caption} Intervals: 95 %.", size=size),
        )
    for place, (name, effects) in enumerate(found.techniques.items(), start=1):
        yield Named(f"techniques-{place}", f"Techniques: {name}", _techniques(name, effects, caption))


def _techniques(name: str, effects: Effects, caption: str) -> Callable[[str], Figure]:
    what = f"gain of a technique in top-1 (points): {name}"
    return lambda size: effects_figure({name: effects}, {}, what=what, caption=caption, size=size)


def _tradeoff(view: View, metric: str) -> Callable[[str], Figure]:
    return lambda size: tradeoff_figure(view.ladder, metric, paper=view.paper, caption=view.caption, size=size)
