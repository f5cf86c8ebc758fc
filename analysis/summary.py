"""What a ladder says, in sentences. Each is a claim that the tables back; none says more than the runs do."""

import math
from collections.abc import Sequence

import numpy as np

from analysis.agreement import Agreement
from analysis.gains import DIVERGED, FAILED, GAIN, HALF, LOSS, MISSING, NO_EFFECT, NOISE, SINGLE
from analysis.ladder import Ladder
from analysis.tables import seeds_text, signed
from roadmap.effects.testing import ALPHA, MARGIN, seeds_needed


def summary_of(ladder: Ladder, agreement: Agreement | None) -> list[str]:
    """The sentences for the top of the page."""
    lines = [_ends(ladder), *_coverage(ladder), *_verdicts(ladder), *_noise(ladder)]
    if agreement is not None and not ladder.is_paper:
        lines += _agreement(agreement, f"the {ladder.publication}")
    return [line for line in lines if line]


def _names(rows: Sequence[str]) -> str:
    return ", ".join(rows)


def _ends(ladder: Ladder) -> str:
    rows = ladder.measured
    if not len(rows):
        return "No finished run of a ladder step yet."
    path = rows[rows["on_path"]]
    if len(path) < 2 or ladder.means is None:
        return f"{len(rows)} step trained so far: {rows.iloc[0].label} at {rows.iloc[0].top1:.2f} %."
    first, last = path.iloc[0], path.iloc[-1]
    weights = np.zeros((1, len(ladder.cells)))
    weights[0, ladder.cells[last.step]], weights[0, ladder.cells[first.step]] = 1, -1
    value, low, high, _ = (float(part[0]) for part in ladder.means.intervals(weights))
    lost = first.diverged or last.diverged
    sure = min(first.n, last.n) >= 2 and math.isfinite(low) and not lost
    why = "runs diverged" if lost else "single runs"
    interval = f" (95 % interval {signed(low)} to {signed(high)})" if sure else f" (no interval: {why})"
    return (
        f"From {first.label}, {first.top1:.2f} %, to {last.label}, {last.top1:.2f} %: {signed(value)} points{interval}."
    )


def _coverage(ladder: Ladder) -> list[str]:
    table = ladder.table
    lines = []
    if not ladder.is_paper:
        seeds = ladder.measured["n"]
        spread = (
            f"{seeds.min()} to {seeds.max()}"
            if len(seeds) and seeds.min() != seeds.max()
            else f"{seeds.max() if len(seeds) else 0}"
        )
        lines.append(f"{len(ladder.measured)} of {len(table)} steps have finished runs, {spread} per step.")
    for status, verb in (
        (MISSING, "Not trained"),
        (NO_EFFECT, "No effect here"),
        (HALF, "Half done"),
        (FAILED, "Failed"),
        (DIVERGED, "Diverged"),
    ):
        found = table[(table["status"] == status)]["label"]
        if len(found):
            lines.append(f"{verb}: {_names(found)}.")
    lost = table[(table["diverged"] > 0) & (table["n"] > 0)]
    for row in lost.itertuples():
        lines.append(
            f"{row.label}: {row.diverged} of {row.n + row.diverged} runs diverged; its mean is over the others, so it "
            "gets no verdict."
        )
    return lines


def _verdicts(ladder: Ladder) -> list[str]:
    table = ladder.table
    lines = []
    for verdict, words in ((GAIN, "Gains that noise does not explain (Holm-adjusted, 5 %)"), (LOSS, "Losses")):
        rows = table[table["verdict"] == verdict].sort_values("gain", ascending=verdict == LOSS)
        if len(rows):
            lines.append(f"{words}: {_names([f'{r.label} {signed(r.gain)}' for r in rows.itertuples()])}.")
    noise = table[table["verdict"] == NOISE]
    if len(noise):
        lines.append(f"Within noise, so neither shown to help nor shown not to: {_names(noise['label'])}.")
    single = table[table["verdict"] == SINGLE]
    if len(single):
        lines.append(f"One run on either side, so no verdict: {_names(single['label'])}.")
    return lines


def _noise(ladder: Ladder) -> list[str]:
    lines = []
    mde = ladder.table["mde"].median()
    if math.isfinite(ladder.sigma):
        assert ladder.means is not None
        needed = seeds_needed(MARGIN, ladder.sigma, len(ladder.cells), ladder.tests)
        model = "step + seed" if ladder.blocked else "step"
        lines.append(
            f"Noise of one run around {model}: {ladder.sigma:.3f} points, pooled over {ladder.means.df} degrees of "
            f"freedom. Under Holm's correction over {ladder.tests} gains a true gain of {mde:.2f} points gets a "
            f"verdict with 80 % power; one of {MARGIN} points would need {seeds_text(needed)} seeds per step."
        )
    lines += _equal_variance(ladder)
    errors = ladder.table["sampling_error"].dropna()
    if len(errors):
        bound = ladder.table["gain_sampling_error"].median()
        lines.append(
            f"Seeds say nothing about the choice of test images: it adds a standard error of {errors.median():.2f} "
            f"points to each top-1 (binomial) and of at most {bound:.2f} to a gain (same images for both networks)."
        )
    return lines


def _equal_variance(ladder: Ladder) -> list[str]:
    """Does one noise level do for all steps, and which verdicts do not rest on it?"""
    tests = ladder.equal_variance
    shown = [
        f"{name} p = {p:.2g}"
        for name, p in (("Brown-Forsythe", tests.brown_forsythe), ("Bartlett", tests.bartlett))
        if math.isfinite(p)
    ]
    if not shown:
        return []
    seen = any(p < ALPHA for p in tests)
    verdict = "differs between steps, so the verdicts are doubtful" if seen else "is not shown to differ between steps"
    line = f"The noise {verdict}: {', '.join(shown)} (below five seeds the first sees nothing)."
    given = ladder.table[ladder.table["survives_welch"] != ""]
    if len(given):
        kept = given[given["survives_welch"] == "yes"]["label"]
        names = f": {_names(kept)}" if len(kept) else ""
        line += f" Of {len(given)} verdicts {len(kept)} survive Welch's test, in which steps share no noise{names}."
    return [line]


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _agreement(agreement: Agreement, published: str) -> list[str]:
    """How far the gains are in the published order, beside what noise and another regime leave of such an order."""
    apart = " (the recipe's row apart)" if math.isfinite(agreement.paper_recipe_gain) else ""
    bounds = [
        f"{words} {_two(one.low)} to {_two(one.high)}"
        for one, words in ((agreement.over_noise, "over the noise of runs"), (agreement.over_steps, "over steps"))
        if math.isfinite(one.low)
    ]
    intervals = f" (95 % interval {', '.join(bounds)})" if bounds else ""
    lines = [
        f"Agreement with {published} over {len(agreement.steps)} steps{apart}: rank correlation of the gains "
        f"{_two(agreement.over_steps.estimate)}{intervals}."
    ]
    if math.isfinite(agreement.ceiling.estimate):
        one = agreement.ceiling
        lines.append(
            f"What could be reached: were the noise-free gains in {published}'s very order, this noise would leave "
            f"{_two(one.estimate)} on average (95 % of the time {_two(one.low)} to {_two(one.high)})."
        )
    if agreement.regimes is not None:
        one, (first, second) = agreement.regimes, agreement.regime_names
        lines.append(
            f"For comparison, {published}'s own regimes {first} and {second}: {_two(one.estimate)} (95 % interval over "
            f"steps {_two(one.low)} to {_two(one.high)})."
        )
    if math.isfinite(agreement.recipe_gain):
        one = agreement.recipe_difference
        interval = f" (95 % interval {signed(one.low)} to {signed(one.high)})" if math.isfinite(one.low) else ""
        lines.append(
            f"The recipe's own gain: {signed(agreement.recipe_gain)}; {published}'s: "
            f"{signed(agreement.paper_recipe_gain)}; difference {signed(one.estimate)}{interval}."
        )
    return lines
