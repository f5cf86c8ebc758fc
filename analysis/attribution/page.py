"""The report's sections on sets of changes: words, figures and sortable tables of every effect."""

import math
from collections.abc import Mapping, Sequence

from analysis.attribution.game import Effects
from analysis.attribution.kernels import KernelCurve, kernel_curves
from analysis.attribution.predicted import Predicted
from analysis.attribution.study import Attribution
from analysis.page import Drawing, Section, Table
from analysis.tables import plain, signed

MOST_ROWS = 200


def attribution_sections(
    found: Attribution, labels: Mapping[str, str], drawings: Mapping[str, Drawing]
) -> list[Section]:
    """A section for single changes, one for pairs, one for the recipe's techniques: those that have runs."""

    def shown(*names: str) -> list[Drawing]:
        return [drawing for name, drawing in drawings.items() if name.rstrip("-0123456789") in names]

    parts = []
    if found.effects:
        words = [*_methods(found), *_diverged(found)]
        tables = [_methods_table(found.effects, labels)]
        parts.append(Section("attribution", "Each change by itself", words, shown("attribution", "positions"), tables))
    if found.pairs is not None or found.contexts is not None:
        tables = []
        if found.contexts is not None:
            tables.append(_effects_table(found.contexts, "pairs of changes in the contexts that were trained", {}))
        if found.pairs is not None:
            tables.append(_effects_table(found.pairs, f"all pairs ({found.pairs_how})", {}))
        words = ["Above 0: the two bring more together than the sum of what each brings without the other."]
        parts.append(Section("pairs", "Changes in pairs", words, shown("interactions", "contexts"), tables))
    if found.predicted is not None and found.predicted.best:
        parts.append(
            Section("untrained", "Sets that nobody trained", [_check(found.predicted)], [], [_best(found.predicted)])
        )
    curves = kernel_curves(found.game)
    if curves:
        words = ["Kernel sizes on every set of other changes that was trained with at least three of them."]
        parts.append(
            Section(
                "kernel-contexts",
                "Kernel sizes in several networks",
                words,
                shown("kernel-contexts"),
                _kernel_tables(curves),
            )
        )
    if found.techniques:
        tables = [_effects_table(effects, name, {}) for name, effects in found.techniques.items()]
        words = ["Each technique taken from the recipe, or added to it, by itself; everything else stays."]
        parts.append(Section("techniques", "The recipe, technique by technique", words, shown("techniques"), tables))
    return parts


def _methods(found: Attribution) -> list[str]:
    """How each kind of effect was computed, how many runs stand behind it and what they could have found."""
    lines = []
    for method, effects in found.effects.items():
        mde = f"; {effects.mde:.2f} points would be found with 80 % power (Holm)" if math.isfinite(effects.mde) else ""
        lines.append(f"{method[0].upper()}{method[1:]}: {found.how[method]}. n = {effects.n} per set at least{mde}.")
    if any(effects.n == 1 for effects in found.effects.values()):
        lines.append("With one run per set the noise of a run is unknown: no verdict, and intervals lack it.")
    return lines


def _check(predicted: Predicted) -> str:
    """How far the predictions can be trusted: each trained set against what the others say of it."""
    return (
        "Expected from all trained sets together. Checked by leaving each trained set out in turn: the 95 % interval "
        f"that the others give holds {predicted.covered} of {predicted.trained} "
        f"({100 * predicted.covered / predicted.trained:.0f} %)."
    )


def _best(predicted: Predicted) -> Table:
    rows: list[list[tuple[str, float | None]]] = []
    for one in predicted.best:
        interval = f"{plain(one.top1)} [{plain(one.low)}, {plain(one.high)}]"
        rows.append([(" + ".join(one.changes) or "no change", None), (interval, one.top1)])
    return Table(("set of changes", "expected top-1 [95 % CI]"), rows, "untrained sets that promise most", css="ladder")


def _diverged(found: Attribution) -> list[str]:
    if not found.diverged:
        return []
    names = "; ".join(found.diverged)
    return [
        f"Diverged: {names}. A set of which a run diverged has no top-1, whatever its other runs reached; effects that "
        "need it have no number, the others are not touched."
    ]


def _interval(effects: Effects, i: int) -> str:
    low, high = float(effects.low[i]), float(effects.high[i])
    if effects.lost[i]:
        return "diverged"
    if not math.isfinite(low):
        return signed(float(effects.estimate[i]))
    return f"{signed(float(effects.estimate[i]))} [{signed(low)}, {signed(high)}]"


def _key(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _methods_table(series: Mapping[str, Effects], labels: Mapping[str, str]) -> Table:
    names = list(dict.fromkeys(name for effects in series.values() for name in effects.names))
    order = list(labels)
    rows = []
    for name in sorted(names, key=lambda name: order.index(name) if name in order else len(order)):
        cells: list[tuple[str, float | None]] = [(labels.get(name, name), None)]
        for effects in series.values():
            if name in effects.names:
                i = effects.names.index(name)
                cells.append((_interval(effects, i), _key(effects.estimate[i])))
            else:
                cells.append(("–", None))
        rows.append(cells)
    return Table(["change", *series], rows, "gains and 95 % intervals of each alone, points of top-1", css="ladder")


def _kernel_tables(curves: Sequence[KernelCurve]) -> list[Table]:
    """Top-1 by kernel and network, and the gains over the smallest kernel."""
    sizes = sorted({size for curve in curves for size in curve.sizes})
    heads = ["network", *(f"{size} × {size}" for size in sizes)]
    means: list[list[tuple[str, float | None]]] = []
    gains: list[list[tuple[str, float | None]]] = []
    for curve in curves:
        top1 = dict(zip(curve.sizes, curve.top1, strict=True))
        means.append(
            [(curve.name, None), *((plain(top1.get(s, math.nan)), _key(top1.get(s, math.nan))) for s in sizes)]
        )
        places = {size: i for i, size in enumerate(curve.sizes[1:])}
        cells = [
            (_interval(curve.gains, places[s]), _key(curve.gains.estimate[places[s]])) if s in places else ("–", None)
            for s in sizes[1:]
        ]
        gains.append([(curve.name, None), *cells])
    return [
        Table(heads, means, "mean top-1, per cent"),
        Table([heads[0], *heads[2:]], gains, f"gain over {heads[1]} with its 95 % interval, points of top-1"),
    ]


def _effects_table(effects: Effects, title: str, labels: Mapping[str, str]) -> Table:
    frame = effects.frame()
    rows: list[list[tuple[str, float | None]]] = []
    for i, row in enumerate(frame.itertuples()):
        if not (math.isfinite(row.estimate) or row.lost):
            continue
        p = "–" if math.isnan(row.p_holm) else f"{row.p_holm:.2g}"
        rows.append(
            [(labels.get(row.name, row.name), None), (_interval(effects, i), _key(row.estimate)), (p, _key(row.p_holm))]
        )
    strongest = sorted(rows, key=lambda cells: cells[2][1] if cells[2][1] is not None else 2.0)[:MOST_ROWS]
    return Table(("", "effect [95 % CI, alone]", "p (Holm)"), strongest, title, css="ladder")
