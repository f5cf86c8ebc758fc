"""`Ladder`: one row per step, in ladder order, with means, gains, intervals, verdicts and the paper's numbers.

Runs and the paper's own numbers give the same table, so every figure and page is drawn from either.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import stats
from analysis.groups import Group
from analysis.speeds import NO_SPEEDS, REGIME, SIZE, SWIN, Speeds
from roadmap import complexity_of, paper
from roadmap.effects.noise import AdditiveModel, Means
from roadmap.steps import BY_NAME, CHANGES, START, STEPS

_WIDTH_STEPS = tuple(name for name in BY_NAME if name in CHANGES and set(BY_NAME[name].delta) == {"width"})
RECIPE_STEPS = tuple(step.name for step in STEPS if step.parent is not None and not step.delta)
FINISHED, PARTIAL, DIVERGED, FAILED, HALF, MISSING = "finished", "partial", "diverged", "failed", "half done", "missing"
GAIN, LOSS, NOISE, SINGLE = "gain", "loss", "within noise", "n = 1"


_RUN_COLUMNS = ["step", "seed", "top1", "eval_size"]


@dataclass(frozen=True)
class Ladder:
    """A ladder as a table and the estimates behind it.

    Attributes:
        table: a row per step, see `COLUMNS`; NaN or "" where a step has no number.
        title: what was trained, in words.
        regime: "tiny", "base", "micro".
        means: estimated means of the steps in `cells`, with their pooled noise; None without any number.
        cells: step -> index into `means`.
        is_paper: True for the published numbers.
        blocked: True if the model holds an effect per seed (runs of a step share their seeds with the other steps).
        notes: footnotes that belong under every drawing of this ladder.
        reference: the paper's row of the network that it compares with (Swin).
        reference_speed: its measured training images per second, NaN where nobody measured it.
    """

    table: pd.DataFrame
    title: str
    regime: str
    means: Means | None
    cells: dict[str, int]
    is_paper: bool = False
    blocked: bool = False
    notes: tuple[str, ...] = ()
    reference: paper.PaperRow | None = None
    reference_speed: float = math.nan

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


def ladder_of(group: Group) -> Ladder:
    """The ladder of a group of runs."""
    finished = group.runs[(group.runs["status"] == FINISHED) & group.runs["step"].notna()]
    means, cells, blocked = None, {}, False
    if len(finished):
        cells = {name: index for index, name in enumerate(sorted(finished["step"].unique()))}
        model = AdditiveModel(finished["step"].map(cells).tolist(), finished["seed"].tolist())
        means, blocked = model.fit(finished["top1"].to_numpy()), model.blocked
    rows = [_measured_row(step.name, group) for step in STEPS]
    table = _with_paper(_with_gains(_frame(rows), means, cells), group.regime)
    table["label"] = [_own_label(label, group.regime) for label in table["label"]]
    table = _with_sensitivity(table, finished)
    same = " and ".join(BY_NAME[name].label for name in _WIDTH_STEPS)
    notes = (f"Widths are matched, so that “{same}” is the network of the step before it.",) if group.matched else ()
    return Ladder(table, group.title, group.regime, means, cells, False, blocked, notes, _swin(group.regime))


def paper_ladder(regime: str, speeds: Speeds = NO_SPEEDS) -> Ladder:
    """The published numbers of a regime ("tiny" or "base") as a ladder, with the speeds of one's own device."""
    known = speeds if regime == REGIME else NO_SPEEDS
    published = {row.step: row for row in paper.rows() if row.regime == regime and not row.is_reference}
    rows = []
    for step in (step for step in STEPS if step.name in published):
        row = published[step.name]
        numbers = {"top1": row.top1, "std": _nan(row.top1_std), "n": row.seeds or 1, "gmacs": row.gflops_counted}
        numbers["params"] = complexity_of(step.name, regime=regime).params
        numbers["images_per_second"] = known.of.get(step.name, math.nan)
        rows.append(_blank(step.name) | numbers | {"status": FINISHED})
    frame = _frame(rows)
    means = stats.means_from_summary(frame["top1"], frame["std"], frame["n"])
    cells = {name: index for index, name in enumerate(frame["step"])}
    table = _with_sensitivity(_with_paper(_with_gains(frame, means, cells), regime), pd.DataFrame(columns=_RUN_COLUMNS))
    ends = published[START.name].label.split(" (")[0]
    title = f"the paper, ImageNet-1K, {ends} / {_swin(regime).label} regime"  # type: ignore[union-attr]
    moved = [r.label for r in paper.rows() if r.regime == regime and r.gflops != r.gflops_counted]
    notes = (f"GFLOPs as counted; the paper's table prints other values for {', '.join(moved)}.",) if moved else ()
    if known.of:
        notes = (*notes, f"Images per second: measured, {SIZE} px, {known.where}.")
    speed = known.of.get(SWIN, math.nan)
    return Ladder(table, title, regime, means, cells, True, False, notes, _swin(regime), speed)


def _own_label(label: str, regime: str) -> str:
    """A label of the paper for a run of one's own: our first row is trained, and micro is neither ResNet-50 nor -T."""
    label = label.replace("(PyTorch)", "(original recipe)")
    if label == "ResNet-200":
        label += " (original recipe)"
    if regime not in {row.regime for row in paper.rows()}:
        label = label.replace("ResNet-50", "ResNet").replace("ConvNeXt-T", "ConvNeXt")
    return label


def _nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _swin(regime: str) -> paper.PaperRow | None:
    return next((row for row in paper.rows() if row.regime == regime and row.is_reference), None)


def _blank(name: str) -> dict[str, object]:
    """The row of a step before any number is known."""
    step = next(step for step in STEPS if step.name == name)
    row = paper.row(name)
    return {
        "step": name,
        "label": step.label,
        "section": step.section,
        "parent": step.parent,
        "on_path": step.on_path,
        "adopted": row.adopted if row else True,
        "status": MISSING,
        "n": 0,
        "diverged": 0,
        **dict.fromkeys(
            ("top1", "std", "top1_best", "gmacs", "params", "images_per_second", "sampling_error"), math.nan
        ),
    }


def _measured_row(name: str, group: Group) -> dict[str, object]:
    """Counts, means and costs of one step's runs."""
    row = _blank(name)
    if group.matched and row["parent"] in _WIDTH_STEPS:  # the same network as the step before it
        row["parent"] = BY_NAME[str(row["parent"])].parent
    runs = group.runs[group.runs["step"] == name]
    finished = runs[runs["status"] == FINISHED]
    unfinished = [item.state for item in group.unfinished if item.step == name]
    row["n"], row["diverged"] = len(finished), int((runs["status"] == DIVERGED).sum())
    if len(finished):
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


def _with_gains(table: pd.DataFrame, means: Means | None, cells: dict[str, int]) -> pd.DataFrame:
    """Add gain over the parent, its interval, p, Holm's p, the verdict, what could be found and what is needed."""
    blank = dict.fromkeys(("gain", "gain_low", "gain_high", "p", "mde", "seeds_needed"), math.nan)
    by_step = table.set_index("step")
    rows = []
    for step, parent in zip(table["step"], table["parent"], strict=True):
        row = dict(blank)
        if means is not None and step in cells and parent in cells:
            weights = np.zeros((1, len(cells)))
            weights[0, cells[step]], weights[0, cells[parent]] = 1, -1
            value, low, high, p = (float(part[0]) for part in means.intervals(weights))
            row["gain"] = value
            pair = by_step.loc[[step, parent]]
            if pair["n"].min() >= 2 and not pair["diverged"].any():  # survivors of a divergence are no fair sample
                row |= {"gain_low": low, "gain_high": high, "p": p}
                row["mde"] = stats.detectable(float(means.contrast(weights)[1][0]), means.df)
            row["seeds_needed"] = stats.seeds_needed(value, float(means.sigma), len(cells))
        rows.append(row)
    table = pd.concat([table, pd.DataFrame(rows, columns=list(blank))], axis=1)
    table["p_holm"] = stats.holm(table["p"])
    table["verdict"] = [_verdict(row, by_step) for row in table.itertuples()]
    return table


def _verdict(row: object, by_step: pd.DataFrame) -> str:
    """gain, loss or within noise after Holm; why there is none where runs are missing, single or diverged."""
    step, parent = row.step, row.parent  # type: ignore[attr-defined]
    if parent is None or parent != parent:
        return ""
    pair = by_step.loc[[step, parent]]
    if (pair["diverged"] > 0).any():
        return DIVERGED
    if (pair["n"] == 0).any():
        return MISSING
    if (pair["n"] == 1).any():
        return SINGLE
    if row.p_holm != row.p_holm:  # type: ignore[attr-defined]
        return "no spread"
    if row.p_holm >= stats.ALPHA:  # type: ignore[attr-defined]
        return NOISE
    return GAIN if row.gain > 0 else LOSS  # type: ignore[attr-defined]


def _with_paper(table: pd.DataFrame, regime: str) -> pd.DataFrame:
    """Add the paper's numbers of this regime (of tiny, the main one, for a regime that the paper does not have)."""
    known = regime if any(row.regime == regime for row in paper.rows()) else "tiny"
    published = [paper.row(step, known) for step in table["step"]]
    parents = [paper.row(parent, known) if isinstance(parent, str) else None for parent in table["parent"]]
    table["paper_top1"] = [_nan(row.top1 if row else None) for row in published]
    table["paper_std"] = [_nan(row.top1_std if row else None) for row in published]
    table["paper_n"] = [_nan(row.seeds if row else None) for row in published]
    table["paper_gmacs"] = [_nan(row.gflops_counted if row else None) for row in published]
    table["paper_gain"] = [
        row.top1 - parent.top1 if row and parent else math.nan for row, parent in zip(published, parents, strict=True)
    ]
    labels = [paper.row(step, regime) for step in table["step"]]
    names = [row.label if row else label for row, label in zip(labels, table["label"], strict=True)]
    table["label"] = [name.replace("->", "→") for name in names]
    table["difference"] = table["top1"] - table["paper_top1"]
    table["gain_difference"] = table["gain"] - table["paper_gain"]
    return table


def _with_sensitivity(table: pd.DataFrame, finished: pd.DataFrame) -> pd.DataFrame:
    """Add the gain's interval by two methods that share no noise estimate with the other steps."""
    top1 = {step: runs.set_index("seed")["top1"] for step, runs in finished.groupby("step")}
    names = ("paired_low", "paired_high", "welch_low", "welch_high", "gain_sampling_error")
    images = finished["eval_size"].dropna()
    rows = []
    for step, parent in zip(table["step"], table["parent"], strict=True):
        if step not in top1 or parent not in top1:
            rows.append((math.nan,) * 5)
            continue
        ours, theirs = top1[step], top1[parent]
        both = ours.index.intersection(theirs.index)
        pairs = stats.paired(ours[both], theirs[both])
        welch = stats.two_sample(ours, theirs)
        error = math.nan
        if len(images) == len(finished):
            error = stats.sampling_error_of_gain(ours.mean(), theirs.mean(), int(images.iloc[0]))
        rows.append((pairs.low, pairs.high, welch.low, welch.high, error))
    return pd.concat([table, pd.DataFrame(rows, columns=list(names))], axis=1)
