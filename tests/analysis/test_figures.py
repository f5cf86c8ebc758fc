"""Every figure shows the table's values: lengths, order, hatching, labels; and what it must not show."""

import itertools
import subprocess
import sys
import time

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text

from analysis import theme
from analysis.figures.curves import curves_figure
from analysis.figures.gains import gains_figure
from analysis.figures.kernels import kernels_figure, ladder_curve
from analysis.figures.layout import spread
from analysis.figures.roadmap import HATCH, roadmap_figure
from analysis.figures.tradeoff import tradeoff_figure
from analysis.ladder import paper_ladder
from roadmap import STEPS, paper
from tests.analysis import factory
from tests.analysis.test_ladder import PUBLISHED, ladder_from

NAMES = [step.name for step in STEPS]


def by_gid(axes, prefix):
    artists = [*axes.patches, *axes.lines, *axes.texts]
    return {a.get_gid().split(":")[1]: a for a in artists if (a.get_gid() or "").startswith(prefix + ":")}


@pytest.fixture(scope="module")
def tiny():
    return paper_ladder("tiny")


@pytest.fixture(scope="module")
def base():
    return paper_ladder("base")


@pytest.mark.parametrize("size", theme.SIZES)
def test_the_papers_figure_shows_the_papers_values(tiny, base, size):
    figure = roadmap_figure(tiny, second=base, size=size)
    _, bars, gflops = figure.axes
    main, thin, marks = by_gid(bars, "bar"), by_gid(bars, "second"), by_gid(gflops, "gflops")
    assert list(main) == list(thin) == list(marks) == NAMES
    start = bars.get_xlim()[0]
    for i, name in enumerate(NAMES):
        published = paper.row(name, "tiny")
        assert main[name].get_x() == start
        assert main[name].get_x() + main[name].get_width() == pytest.approx(published.top1)
        assert main[name].get_y() + main[name].get_height() / 2 == pytest.approx(i)
        assert (main[name].get_hatch() == HATCH) == (not published.adopted)
        assert thin[name].get_x() + thin[name].get_width() == pytest.approx(paper.row(name, "base").top1)
        assert thin[name].get_height() < main[name].get_height() / 2
        assert thin[name].get_facecolor()[:3] == to_rgb(theme.SECOND)
        assert marks[name].get_xdata() == pytest.approx([published.gflops_counted])
    assert all(axes.get_xgridlines()[0].get_visible() for axes in (bars, gflops))
    hatched = [name for name in NAMES if main[name].get_hatch()]
    assert hatched == ["kernel_9", "kernel_11"]
    assert bars.get_ylim()[0] > bars.get_ylim()[1]  # the ladder goes down the page
    labels = [label.get_text().replace("\n", " ") for label in bars.get_yticklabels()]
    assert labels == [paper.row(name).label.replace("->", "→") for name in NAMES] + ["Swin-T"]
    values = by_gid(bars, "value")
    decimals = 1 if size == "column" else 2
    assert [values[name].get_text() for name in NAMES] == [theme.number(PUBLISHED[name], decimals) for name in NAMES]
    swin = next(patch for patch in bars.patches if patch.get_gid() == "reference")
    assert swin.get_x() + swin.get_width() == pytest.approx(81.3)


def test_a_single_run_is_hollow_and_has_no_error_bar(tiny, base):
    figure = roadmap_figure(base, second=tiny)
    bars = by_gid(figure.axes[1], "bar")
    assert {to_hex(bar.get_facecolor()) for bar in bars.values()} == {"#ffffff"}
    assert not figure.axes[1].containers or all(len(c.patches) for c in figure.axes[1].containers)
    filled = by_gid(roadmap_figure(tiny).axes[1], "bar")
    assert to_hex(filled["gelu"].get_facecolor()) == theme.section_colours(tiny.road)["micro design"].lower()
    assert to_hex(filled["resnet50"].get_facecolor()) == "#ffffff"


def test_own_runs_missing_diverged_and_failed_steps(tmp_path, tiny, base):
    records = [r for r in factory.ladder(PUBLISHED.get) if r["step"] not in ("gelu", "width")]
    records += [factory.record("gelu", seed, None, status="diverged", loss=None, top1_best=None) for seed in range(2)]
    ladder = ladder_from(tmp_path, records)
    figure = roadmap_figure(ladder, paper=tiny, paper_second=base)
    assert [axes.get_title(loc="left") for axes in figure.axes[1:]] == ["these runs", "the paper", "cost"]
    bars, states = by_gid(figure.axes[1], "bar"), by_gid(figure.axes[1], "state")
    assert set(NAMES) - set(bars) == {"gelu", "width"}
    assert states["gelu"].get_text() == "× 2 diverged"
    assert states["width"].get_text() == "– missing"
    assert list(by_gid(figure.axes[2], "bar")) == NAMES


@pytest.mark.parametrize("size", theme.SIZES)
@pytest.mark.parametrize("regime", ["tiny", "base"])
def test_labels_of_the_path_do_not_overlap(regime, size):
    figure = tradeoff_figure(paper_ladder(regime), "gmacs", size=size)
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    labels = [text for text in axes.texts if text.get_text()]
    assert len(labels) == len(NAMES) + 1
    boxes = sorted((Text.get_window_extent(text) for text in labels), key=lambda box: box.y0)  # without their lines
    assert all(below.y1 <= above.y0 + 1 for below, above in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) > axes.get_window_extent().x1
    assert max(box.x1 for box in boxes) <= figure.bbox.x1 and min(box.y0 for box in boxes) >= 0


def test_path_is_the_adopted_steps(tiny):
    axes = tradeoff_figure(tiny, "gmacs").axes[0]
    path = axes.lines[0]
    on_path = [step.name for step in STEPS if step.on_path]
    assert path.get_ydata().tolist() == [PUBLISHED[name] for name in on_path]
    assert set(by_gid(axes, "point")) == set(NAMES)


def test_gains_show_estimates_intervals_and_verdicts(tiny):
    axes = gains_figure(tiny).axes[0]
    dots = by_gid(axes, "gain")
    for name in NAMES[1:]:
        row = tiny.row(name)
        assert dots[name].get_xdata()[0] == pytest.approx(row["gain"])
        sure = row["gain_low"] == row["gain_low"]
        assert (to_hex(dots[name].get_markerfacecolor()) == "#ffffff") == (not sure)
    assert [text.get_text() for text in axes.texts] == tiny.table["verdict"].tolist()[1:]


def test_kernel_sizes(tiny, base):
    axes = kernels_figure({"tiny": ladder_curve(tiny), "base": ladder_curve(base)}).axes[0]
    line = next(line for line in axes.lines if len(line.get_xdata()) == 5 and line.get_linestyle() == "-")
    assert line.get_ydata() == pytest.approx([0, 0.43, 0.65, 0.65, 0.55])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["3 × 3", "5 × 5", "7 × 7", "9 × 9", "11 × 11"]


def test_curves(tiny):
    frame = pd.DataFrame(
        [(s, e, 70 + e) for s in ("gelu", "width") for e in range(5)], columns=["step", "epoch", "top1"]
    )
    figure = curves_figure(tiny, frame)
    assert [axes.get_legend().get_title().get_text() for axes in figure.axes[:2]] == ["ResNeXt-ify", "micro design"]


@pytest.mark.parametrize("wanted", [[0, 0, 0], [5, 5, 5.1, 9], [9.9, 9.9], [], [3], [0, 10, 0, 10]])
def test_spread_keeps_distance_order_and_bounds(wanted):
    places = spread(wanted, 1.0, 0.0, 10.0)
    assert len(places) == len(wanted)
    if len(wanted) > 1:
        assert np.diff(np.sort(places)).min() >= 1 - 1e-9
    for i in range(len(wanted)):
        for j in range(len(wanted)):
            assert not (wanted[i] < wanted[j] and places[i] > places[j])
    assert all(-1e-9 <= place <= 10 + 1e-9 for place in places)


def test_spread_without_room_is_even():
    assert spread([1, 2, 3], 5.0, 0.0, 4.0).tolist() == [0, 2, 4]


def test_files_are_equal_for_equal_figures_and_style_does_not_leak(tmp_path, tiny):
    before = dict(mpl.rcParams)
    for name in ("a", "b"):
        theme.save(roadmap_figure(tiny), tmp_path / name)
    assert dict(mpl.rcParams) == before
    for ending in theme.FORMATS:
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
        assert (tmp_path / f"a.{ending}").stat().st_size > 5000


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return np.dot([0.2126, 0.7152, 0.0722], linear)


@pytest.mark.parametrize("colour", ["INK", "MUTED", "BAD", "GOOD", "PAPER", "OURS"])
def test_colours_of_text_and_marks_stand_out_on_white(colour):
    contrast = 1.05 / (luminance(getattr(theme, colour)) + 0.05)
    assert contrast >= (4.5 if colour in ("INK", "MUTED", "BAD", "GOOD") else 3)


def test_a_figure_from_a_thousand_runs_within_two_seconds(tmp_path):
    ladder = ladder_from(tmp_path, factory.ladder(PUBLISHED.get, seeds=range(60)))
    assert ladder.table["n"].sum() == 1020
    start = time.process_time()
    theme.save(roadmap_figure(ladder), tmp_path / "ladder", ("png",))
    assert time.process_time() - start < 2


def test_importing_analysis_needs_neither_torch_nor_hydra():
    code = (
        "import sys, analysis.__main__, analysis.views, analysis.report\n"
        "print([name for name in ('torch', 'hydra', 'omegaconf', 'matplotlib.pyplot') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
