"""A ladder as a table to print: CSV with every number, Markdown and LaTeX (booktabs) with what a reader wants."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd

from analysis.collect import Skipped
from analysis.ladder import Ladder
from analysis.theme import number
from roadmap.escape import csv_cell, latex, markdown

DIFFERENCE, SEEDS = "difference of gains [95 % CI]", "seeds for the paper's gain"
JOINT, ALONE = "gain [95 % CI, all at once]", "95 % CI, this gain alone"  # the heads of the two intervals


@dataclass(frozen=True)
class Column:
    """One printed column: its head, a row's text and the number to sort by (the text itself where None)."""

    head: str
    text: Callable[[Any], str]
    key: Callable[[Any], float] | None = None


def signed(value: float, decimals: int = 2) -> str:
    """+0.31, −0.05, or an en dash for a missing number."""
    return f"{value:+.{decimals}f}".replace("-", "−") if math.isfinite(value) else "–"


def plain(value: float, decimals: int = 2) -> str:
    """A number, or an en dash for a missing one."""
    return number(value, decimals) if math.isfinite(value) else "–"


def top1_text(row: Any) -> str:
    """Mean, spread, and how many runs are behind it; how many diverged where some did."""
    spread = f" ± {row.std:.2f}" if math.isfinite(row.std) else ""
    lost = f"{row.diverged} diverged" if row.diverged else ""
    if not math.isfinite(row.top1):
        return lost or "–"
    return f"{row.top1:.2f}{spread} ({row.n:.0f}{', ' * bool(lost)}{lost})"


def _top1(row: Any) -> str:
    return top1_text(row) if math.isfinite(row.top1) else str(row.status)


def gain_text(row: Any) -> str:
    """A gain with the interval of all gains of its table at once, which goes with the verdict."""
    return signed(row.gain) + (f" {interval_text(row.joint_low, row.joint_high)}" * math.isfinite(row.joint_low))


def _difference(row: Any) -> str:
    low = getattr(row, "gain_difference_low", math.nan)  # the published ladder is not compared with itself
    return signed(row.gain_difference) + (f" {interval_text(low, row.gain_difference_high)}" * math.isfinite(low))


COLUMNS = (
    Column("step", lambda row: row.label, lambda row: row.order),
    Column("GMACs", lambda row: plain(row.gmacs), lambda row: row.gmacs),
    Column("params (M)", lambda row: plain(row.params / 1e6), lambda row: row.params),
    Column("images/s", lambda row: plain(row.images_per_second, 0), lambda row: row.images_per_second),
    Column("top-1 (n)", _top1, lambda row: row.top1),
    Column(JOINT, gain_text, lambda row: row.gain),
    Column("verdict", lambda row: row.verdict or "–"),
    Column("paper", lambda row: plain(row.paper_top1), lambda row: row.paper_top1),
    Column("difference", lambda row: signed(row.difference), lambda row: row.difference),
    Column("paper's gain", lambda row: signed(row.paper_gain), lambda row: row.paper_gain),
    Column(DIFFERENCE, lambda row: _difference(row), lambda row: row.gain_difference),
)
NOISE_COLUMNS = (
    COLUMNS[0],
    Column("gain", lambda row: signed(row.gain), lambda row: row.gain),
    Column("p (Holm)", lambda row: "–" if math.isnan(row.p_holm) else f"{row.p_holm:.2g}", lambda row: row.p_holm),
    Column("found with 80 % power (Holm)", lambda row: plain(row.mde), lambda row: row.mde),
    Column(SEEDS, lambda row: seeds_text(row.paper_gain_seeds), lambda row: row.paper_gain_seeds),
    Column(ALONE, lambda row: interval_text(row.gain_low, row.gain_high), lambda row: row.gain_low),
    Column("95 % CI, paired", lambda row: interval_text(row.paired_low, row.paired_high), lambda row: row.paired_low),
    Column("95 % CI, two samples", lambda row: interval_text(row.welch_low, row.welch_high), lambda row: row.welch_low),
    Column("survives Welch (Holm)", lambda row: row.survives_welch or "–"),
    Column("test-set error of top-1", lambda row: plain(row.sampling_error), lambda row: row.sampling_error),
    Column("… of the gain, at most", lambda row: plain(row.gain_sampling_error), lambda row: row.gain_sampling_error),
)


def seeds_text(value: float) -> str:
    """A number of seeds, or that it is too large to count."""
    return "–" if math.isnan(value) else "more than 1000" if math.isinf(value) else f"{value:.0f}"


def interval_text(low: float, high: float) -> str:
    """[+0.12, +0.34], or an en dash for a missing one."""
    return f"[{signed(low)}, {signed(high)}]" if math.isfinite(low) else "–"


def columns_of(ladder: Ladder, columns: tuple[Column, ...] = COLUMNS) -> tuple[Column, ...]:
    """The columns that say something about this ladder: those that would be empty, or 0 by definition, are left out."""
    rows = list(ladder.table.itertuples())
    idle = ("paper", "difference", "paper's gain", DIFFERENCE, SEEDS) if ladder.is_paper else ()
    kept = (c for c in columns if c.head not in idle and any(c.text(row) != "–" for row in rows))
    return tuple(replace(c, head=c.head.replace("paper", ladder.publication)) for c in kept)


def csv_of(ladder: Ladder) -> str:
    """Every column of the ladder, a row per step, full precision; "parent" is the step that the gain is over."""
    frame = ladder.table.copy()
    frame.insert(2, "regime", ladder.regime)
    return csv_text(frame)


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV: numbers with six digits, and text that no spreadsheet takes for a formula."""
    safe = frame.map(lambda value: csv_cell(value) if isinstance(value, str) else value)
    text: str = safe.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return text


def markdown_of(ladder: Ladder, columns: tuple[Column, ...] = COLUMNS) -> str:
    """A Markdown table."""
    columns = columns_of(ladder, columns)
    lines = ["| " + " | ".join(c.head for c in columns) + " |", "|" + "---|" + "---:|" * (len(columns) - 1)]
    for row in ladder.table.itertuples():
        lines.append("| " + " | ".join(markdown(c.text(row)) for c in columns) + " |")
    return "\n".join([*lines, *(f"\n{markdown(note)}" for note in ladder.notes)]) + "\n"


def latex_of(ladder: Ladder, columns: tuple[Column, ...] = COLUMNS) -> str:
    """A LaTeX tabular with booktabs rules and a thin rule between the sections."""
    columns = columns_of(ladder, columns)
    lines = [r"% needs \usepackage{booktabs}", rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}", r"\toprule"]
    lines += [" & ".join(latex(c.head) for c in columns) + r" \\", r"\midrule"]
    section = ladder.table["section"].iloc[0]
    for row in ladder.table.itertuples():
        if row.section != section:
            section = row.section
            lines.append(r"\midrule")
        lines.append(" & ".join(latex(c.text(row)) for c in columns) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *(f"% {latex(note)}" for note in ladder.notes)]) + "\n"


def cells_of(
    ladder: Ladder, columns: tuple[Column, ...] = COLUMNS
) -> tuple[list[str], list[list[tuple[str, float | None]]]]:
    """Heads and rows of (text, sort key) for a sortable page; None sorts last."""
    columns = columns_of(ladder, columns)

    def key(column: Column, row: Any) -> float | None:
        value = float(column.key(row)) if column.key else math.nan
        return value if math.isfinite(value) else None

    rows = [[(c.text(row), key(c, row)) for c in columns] for row in ladder.table.itertuples()]
    return [c.head for c in columns], rows


def runs_csv(runs: pd.DataFrame) -> str:
    """The runs behind a ladder, a row each."""
    return csv_text(runs.drop(columns=["settings"]))


def skipped_csv(skipped: Sequence[Skipped]) -> str:
    """What gave no number and why, a row each."""
    frame = pd.DataFrame([vars(item) for item in skipped], columns=[item.name for item in fields(Skipped)])
    return csv_text(frame)
