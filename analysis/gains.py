"""Gains over a reference, row by row: intervals under one noise level, Holm's p, verdicts, and two further methods."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis import stats
from roadmap.effects.noise import NO_SPREAD, AdditiveModel, Array, Means, quantile
from roadmap.effects.testing import ALPHA, detectable, holm, simultaneous

FINISHED, PARTIAL, DIVERGED, FAILED, HALF, MISSING = "finished", "partial", "diverged", "failed", "half done", "missing"
NO_EFFECT = "no effect"  # of a step whose change has nothing to do in these runs: it is the step before it
GAIN, LOSS, NOISE, SINGLE = "gain", "loss", "within noise", "n = 1"


def means_of(finished: pd.DataFrame, cell: str) -> tuple[Means | None, dict[str, int], bool]:
    """Means of top-1 by a column (model: cell + seed), cell -> its place in them, whether seeds are in the model."""
    if not len(finished):
        return None, {}, False
    cells = {name: index for index, name in enumerate(sorted(finished[cell].unique()))}
    model = AdditiveModel(finished[cell].map(cells).tolist(), finished["seed"].tolist())
    return model.fit(finished["top1"].to_numpy()), cells, model.blocked


def gain_weights(row: Any, cells: Mapping[str, int]) -> Array | None:
    """Weights (1, cells) of a row's gain over its parent; None where one of the two has no mean."""
    if row.step not in cells or row.parent not in cells:
        return None
    weights = np.zeros((1, len(cells)))
    weights[0, cells[row.step]], weights[0, cells[row.parent]] = 1, -1
    return weights


def with_gains(table: pd.DataFrame, means: Means | None, cells: dict[str, int]) -> pd.DataFrame:
    """Add gain over the parent, its intervals, p, Holm's p, the verdict and what could be found.

    Rows are named in the column `step`; `parent` is the row that the gain is over. gain_low to gain_high: 95 % of this
    gain alone; joint_low to joint_high: of all gains of the table at once. mde: the true gain that would get a verdict
    with 80 % power.
    """
    blank = dict.fromkeys(("gain", "gain_low", "gain_high", "p", "error"), math.nan)
    by_step = table.set_index("step")
    rows = []
    for one in table.itertuples():
        row = dict(blank)
        weights = gain_weights(one, cells)
        if means is not None and weights is not None:
            value, low, high, p = (float(part[0]) for part in means.intervals(weights))
            row["gain"] = value = 0.0 if abs(value) < NO_SPREAD else value
            pair = by_step.loc[[one.step, one.parent]]
            if pair["n"].min() >= 2 and not pair["diverged"].any():  # survivors of a divergence are no fair sample
                row |= {"gain_low": low, "gain_high": high, "p": p, "error": float(means.contrast(weights)[1][0])}
        rows.append(row)
    table = pd.concat([table, pd.DataFrame(rows, columns=list(blank))], axis=1)
    df, tests = 0 if means is None else means.df, int(table["p"].notna().sum())
    half = quantile(df, simultaneous(tests)) * table["error"]
    table["joint_low"], table["joint_high"] = table["gain"] - half, table["gain"] + half
    table["mde"] = [detectable(error, df, tests) for error in table.pop("error")]
    table["p_holm"] = holm(table["p"])
    table["verdict"] = [_verdict(row, by_step) for row in table.itertuples()]
    return table


def equal_variance_of(finished: pd.DataFrame, cell: str) -> stats.EqualVariance:
    """Has every cell the same noise? By what cell and seed leave of top-1."""
    if not len(finished):
        return stats.UNTESTED
    model = AdditiveModel(finished[cell].astype("category").cat.codes.tolist(), finished["seed"].tolist())
    left = finished.assign(left=model.residuals(finished["top1"].to_numpy(np.float64)))
    return stats.equal_variance([group.tolist() for _, group in left.groupby(cell)["left"]])


def _verdict(row: object, by_step: pd.DataFrame) -> str:
    """gain, loss or within noise after Holm; why there is none where runs are missing, single or diverged."""
    step, parent = row.step, row.parent  # type: ignore[attr-defined]
    if parent is None or parent != parent:
        return ""
    pair = by_step.loc[[step, parent]]
    if (pair["diverged"] > 0).any():
        return DIVERGED
    if row.status == NO_EFFECT:  # type: ignore[attr-defined]
        return NO_EFFECT
    if (pair["n"] == 0).any():
        return MISSING
    if (pair["n"] == 1).any():
        return SINGLE
    if row.p_holm != row.p_holm:  # type: ignore[attr-defined]
        return "no spread"
    if row.p_holm >= ALPHA:  # type: ignore[attr-defined]
        return NOISE
    return GAIN if row.gain > 0 else LOSS  # type: ignore[attr-defined]


def with_sensitivity(table: pd.DataFrame, finished: pd.DataFrame) -> pd.DataFrame:
    """Add the gain's interval by two methods that share no noise estimate with the other steps.

    survives_welch: whether a verdict is also Welch's, under Holm over the same gains; "" without a verdict.
    """
    whole = set(table.loc[table["diverged"] == 0, "step"])  # what a divergence leaves is no fair sample
    top1 = {step: runs.set_index("seed")["top1"] for step, runs in finished.groupby("step") if step in whole}
    names = ("paired_low", "paired_high", "welch_low", "welch_high", "welch_p", "gain_sampling_error")
    images = finished["eval_size"].dropna()
    rows = []
    for step, parent in zip(table["step"], table["parent"], strict=True):
        if step not in top1 or parent not in top1:
            rows.append((math.nan,) * len(names))
            continue
        ours, theirs = top1[step], top1[parent]
        both = ours.index.intersection(theirs.index)
        pairs = stats.paired(ours[both], theirs[both])
        welch = stats.two_sample(ours, theirs)
        error = math.nan
        if len(images) == len(finished):
            error = stats.sampling_error_of_gain(ours.mean(), theirs.mean(), int(images.iloc[0]))
        rows.append((pairs.low, pairs.high, welch.low, welch.high, welch.p, error))
    table = pd.concat([table, pd.DataFrame(rows, columns=list(names))], axis=1)
    survives = np.where(holm(table["welch_p"].where(table["p"].notna())) < ALPHA, "yes", "no")
    table["survives_welch"] = np.where(table["verdict"].isin((GAIN, LOSS)) & table["welch_p"].notna(), survives, "")
    return table
