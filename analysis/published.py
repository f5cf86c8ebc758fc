"""The published numbers beside one's own: top-1, gains, and how far a gain is from the published one."""

import math

import numpy as np
import pandas as pd

from analysis import stats
from analysis.gains import gain_weights
from roadmap.effects.noise import Means, joint_df, pooled, quantile
from roadmap.effects.testing import seeds_needed
from roadmap.steps import Roadmap


def published_regime(road: Roadmap, regime: str) -> str:
    """The published regime that a regime is compared with: itself, else the roadmap's main one."""
    return regime if regime in road.regimes else road.regimes[0]


def published_means(road: Roadmap, regime: str) -> tuple[Means | None, dict[str, int]]:
    """A roadmap's published top-1s with their noise, and step -> its place in them; None where there are none.

    Where a regime was trained once per step, the spread of the roadmap's other regimes stands in.
    """
    rows = [row for row in road.rows if row.regime == regime and not row.is_reference]
    if not rows:
        return None, {}
    means = stats.means_from_summary(
        [row.top1 for row in rows], [nan(row.top1_std) for row in rows], [row.seeds or 1 for row in rows]
    )
    if means.df < 1:
        known = [row for row in road.rows if row.top1_std is not None and row.seeds]
        sigma, df = pooled([row.top1_std or 0.0 for row in known], [row.seeds or 0 for row in known])
        means = Means(means.mean, means.unscaled, np.asarray(sigma), df)
    return means, {row.step: i for i, row in enumerate(rows)}


def with_published(table: pd.DataFrame, road: Roadmap, regime: str) -> pd.DataFrame:
    """Add the published numbers of this regime (of the main one for a regime in which nothing was published)."""
    known = published_regime(road, regime)
    published = [road.row(step, known) for step in table["step"]]
    parents = [road.row(parent, known) if isinstance(parent, str) else None for parent in table["parent"]]
    table["paper_top1"] = [nan(row.top1 if row else None) for row in published]
    table["paper_std"] = [nan(row.top1_std if row else None) for row in published]
    table["paper_n"] = [nan(row.seeds if row else None) for row in published]
    table["paper_gmacs"] = [nan(row.gflops_counted if row else None) for row in published]
    table["paper_gain"] = [
        row.top1 - parent.top1 if row and parent else math.nan for row, parent in zip(published, parents, strict=True)
    ]
    labels = [road.row(step, regime) for step in table["step"]]
    names = [row.label if row else label for row, label in zip(labels, table["label"], strict=True)]
    table["label"] = [name.replace("->", "→") for name in names]
    table["difference"] = table["top1"] - table["paper_top1"]
    table["gain_difference"] = table["gain"] - table["paper_gain"]
    return table


def with_difference_intervals(
    table: pd.DataFrame, means: Means | None, cells: dict[str, int], road: Roadmap, regime: str
) -> pd.DataFrame:
    """Add the 95 % interval of the difference of gains, and how many seeds would find a gain as large as published.

    The interval has the noise of both gains and Satterthwaite's degrees of freedom; NaN where one's own gain has no
    interval or the published noise is unknown.
    """
    sigma = math.nan if means is None or means.df < 1 else float(means.sigma)
    tests = int(table["p"].notna().sum())
    paper, places = published_means(road, published_regime(road, regime))
    half = np.full(len(table), math.nan)
    for i, row in enumerate(table.itertuples()):
        ours, theirs = gain_weights(row, cells), gain_weights(row, places)
        if means is None or paper is None or ours is None or theirs is None or not math.isfinite(row.gain_low):
            continue
        own, published = (float(one.contrast(weights)[1][0]) ** 2 for one, weights in ((means, ours), (paper, theirs)))
        if paper.df >= 1:
            df = joint_df(np.asarray(own), means.df, np.asarray(published), paper.df)
            half[i] = float(quantile(df)) * math.sqrt(own + published)
    return table.assign(
        paper_gain_seeds=[seeds_needed(gain, sigma, len(cells), tests) for gain in table["paper_gain"]],
        gain_difference_low=table["gain_difference"] - half,
        gain_difference_high=table["gain_difference"] + half,
    )


def nan(value: float | None) -> float:
    """A number, NaN for none."""
    return math.nan if value is None else float(value)
