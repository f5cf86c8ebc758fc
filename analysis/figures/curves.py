"""Top-1 over the epochs, a panel per section of the ladder."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import theme
from analysis.ladder import Ladder

_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_SHADES = (theme.OURS, theme.PAPER, theme.GOOD, "#A0458A", theme.INK)


@theme.styled
def curves_figure(ladder: Ladder, curves: pd.DataFrame, *, caption: str = "", size: str = "page") -> Figure:
    """`curves` has the columns step, epoch, top1 (mean over seeds); the other sections' steps stay in grey behind."""
    trained = ladder.table[ladder.table["step"].isin(curves["step"])]
    sections = list(dict.fromkeys(trained["section"]))
    columns = 2 if size == "column" else 3
    rows = -(-len(sections) // columns)
    most = int(trained.groupby("section").size().max()) if len(trained) else 0
    fig = theme.figure(size, height=(9 + 1.4 * most) * rows + 3 + caption.count("\n"))
    panels = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    theme.note(fig, caption, size)
    lines = {step: one.sort_values("epoch") for step, one in curves.groupby("step")}
    for axes, section in zip(panels, sections, strict=False):
        axes.grid(True)
        own = trained[trained["section"] == section]
        for step in trained["step"]:
            if step not in set(own["step"]):
                axes.plot(
                    lines[step]["epoch"], lines[step]["top1"], color=theme.GRID, linewidth=theme.points(0.8), zorder=1
                )
        for i, row in enumerate(own.itertuples()):
            line = lines[row.step]
            style = {"color": _SHADES[i % len(_SHADES)], "linestyle": _LINES[i % len(_LINES)]}
            axes.plot(line["epoch"], line["top1"], **style, label=row.label, zorder=2)
        _legend_above(axes, section)
    for axes in panels[len(sections) :]:
        axes.set_axis_off()
    low = curves.groupby("step")["top1"].quantile(0.25).min()
    panels[0].set_ylim(bottom=float(low) - 1, top=float(curves["top1"].max()) + 1)
    for axes in panels[max(0, len(sections) - columns) : len(sections)]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("epoch")
    fig.supylabel("top-1 accuracy (%)", fontsize=panels[0].xaxis.label.get_size())
    return fig


def _legend_above(axes: Axes, title: str) -> None:
    """Title and key over the panel: inside it they would cover lines that rise steeply and end close together."""
    text = axes.xaxis.label.get_size()
    axes.legend(
        title=title,
        title_fontproperties={"weight": "bold", "size": text},
        fontsize=text - 2,
        handlelength=2.2,
        alignment="left",
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0,
        borderpad=0.2,
    )
