"""Write a view: figures, tables and one page that holds everything."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis import tables, theme
from analysis.agreement import agreement_of
from analysis.attribution.page import attribution_sections
from analysis.collect import Collection, Skipped
from analysis.configurations import csv_of
from analysis.document import update_document
from analysis.further import further_section
from analysis.gains import FINISHED, NO_EFFECT
from analysis.ladder import Ladder
from analysis.page import Drawing, Section, Table, data_uri, render
from analysis.summary import summary_of
from analysis.views import View, figures_of
from roadmap.program import train_command
from roadmap.steps import DEFAULT

MOST_ROWS = 1000  # of runs and of skipped files on the page; runs.csv and skipped.csv have all
MOST_MIXED = 10  # runs that the page names
COMMANDS = (
    "Commands are those of the frozen study; for runs outside of one they are put together from the record, and single "
    "values that were typed are in the run's config.yaml."
)
METHOD = (
    "A row of the ladder is the mean over runs that differ in nothing but the seed (one config_id); the headline is "
    "the last epoch. Top-1 is modelled as step + seed + noise by least squares, the noise pooled over the ladder; a "
    "gain is a step's mean minus its parent's. Verdicts follow Holm's correction over all gains at 5 %. The interval "
    "in the ladder's table is of all gains at once (Bonferroni): where it leaves 0 out there is a verdict, and Holm "
    "may give one to a few more. That of a gain alone is for who asked about this very gain before the runs.",
    "What is found with 80 % power is the smallest true gain that gets a verdict under Holm, whatever the other gains "
    "are; seeds are per step, for a true gain as large as the published one under the same test. The paired and the "
    "two-sample interval use only the two steps' own runs, each gain alone. The test set's own error is not in the "
    "intervals: all runs share the same images.",
)


def write_view(
    view: View,
    out: Path,
    *,
    collection: Collection | None = None,
    aside: Sequence[Skipped] = (),
    others: Sequence[tuple[str, str]] = (),
    alerts: Sequence[str] = (),
    size: str = "page",
    formats: tuple[str, ...] = theme.FORMATS,
    document: Path | None = None,
) -> list[Path]:
    """Write ladder.{png,svg,pdf,csv,md,tex}, figures/, runs.csv, skipped.csv and report.html into `out`.

    `document` is a Markdown file with markers for what it wants of the page (analysis.document).
    """
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    drawings = {}
    for named in figures_of(view):
        figure = named.draw(size)
        stem = out / "ladder" if named.name == "ladder" else out / "figures" / named.name
        written += theme.save(figure, stem, formats, source_of(view))
        wide = figure if size == "page" else named.draw("page")
        drawings[named.name] = Drawing(data_uri(wide), data_uri(named.draw("column")), named.title)
    skipped = (*(collection.skipped if collection else ()), *aside)
    summary = summary_of(view.ladder, agreement_of(view.ladder))
    sections = [*_result_sections(view, drawings), *_run_sections(view, collection, skipped)]
    page = render(
        title=f"{view.ladder.road.title}: {view.title}",
        subtitle=view.caption,
        summary=summary,
        sections=sections,
        alerts=[*alerts, *_alerts(view.ladder)],
        others=others,
    )
    if document is not None:
        update_document(document, summary, sections)
    texts = {
        "ladder.csv": tables.csv_of(view.ladder),
        "ladder.md": tables.markdown_of(view.ladder),
        "ladder.tex": tables.latex_of(view.ladder),
        "report.html": page,
    }
    if view.group is not None:
        texts["runs.csv"] = tables.runs_csv(view.group.everything)
        if view.further is not None:
            texts["further.csv"] = csv_of(view.further.table)
        texts["skipped.csv"] = tables.skipped_csv(skipped)
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
        written.append(out / name)
    return written


def source_of(view: View) -> str:
    """A hash of every number that the figures of a view draw from its ladder, and of their caption."""
    return hashlib.sha256((tables.csv_of(view.ladder) + view.caption).encode()).hexdigest()[:16]


def _alerts(ladder: Ladder) -> list[str]:
    """What a reader must know before looking at any number."""
    lost = ladder.table[ladder.table["diverged"] > 0]
    if not len(lost):
        return []
    return [
        f"{int(lost['diverged'].sum())} runs of {len(lost)} steps diverged: "
        "these steps and the gains next to them get no verdict."
    ]


def _table(ladder: Ladder, columns: tuple[tables.Column, ...], title: str = "") -> Table:
    heads, rows = tables.cells_of(ladder, columns)
    return Table(heads, rows, title, css="ladder")


def _result_sections(view: View, drawings: dict[str, Drawing]) -> list[Section]:
    """The ladder, the gains with their noise, costs, kernels and curves: those that have a figure."""
    ladder = view.ladder

    def shown(*names: str) -> list[Drawing]:
        return [drawings[name] for name in names if name in drawings]

    parts = [
        Section(
            "ladder", "The ladder", figures=shown("ladder"), tables=[_table(ladder, tables.COLUMNS)], notes=ladder.notes
        ),
        Section(
            "gains",
            "Gains and noise",
            figures=shown("gains"),
            tables=[_table(ladder, tables.NOISE_COLUMNS)],
            notes=METHOD,
        ),
        Section(
            "cost", "Accuracy and cost", figures=shown(*(name for name in drawings if name.startswith("accuracy-")))
        ),
        Section("kernels", "Kernel sizes", figures=shown("kernels")),
        Section("curves", "Training curves", figures=shown("curves")),
    ]
    parts = [part for part in parts if part.figures]
    if view.attribution is not None:  # these have tables, whether or not a figure holds their rows
        parts += attribution_sections(view.attribution, view.labels, drawings)
    return parts + ([further_section(view.further, shown("further"))] if view.further else [])


def _run_sections(view: View, collection: Collection | None, skipped: Sequence[Skipped]) -> list[Section]:
    """Where the numbers come from: settings, versions, every run with its command, and what was left out."""
    group = view.group
    if group is None or collection is None:
        return [
            Section(
                "source",
                "Where the numbers come from",
                words=[f"{view.ladder.road.source}."],
            )
        ]
    runs = group.everything
    facts = [
        f"{len(runs)} runs in {collection.source.name}/, {runs['wall_seconds'].sum() / 3600:.1f} hours in all.",
        f"Devices: {_counted(runs['device'])}. Threads: {_counted(runs['threads'].map('{:.0f}'.format))}.",
        f"Code: {_counted(_commits(runs))}.",
        *_started(runs),
        f"Versions: {_counted(_versions(collection, runs['settings']))}.",
    ]
    settings = {key: value for key, value in group.settings.items() if key != "versions"}
    missing = _missing_command(view)
    parts = [
        Section(
            "provenance",
            "Where the numbers come from",
            facts,
            details=[("settings of the leading recipe", json.dumps(settings, indent=2))],
        ),
        Section(
            "runs",
            "Every run and its command",
            words=missing,
            tables=[_runs_table(runs)],
            notes=[COMMANDS, *_more(len(runs), "runs.csv")],
        ),
    ]
    if skipped:
        words = ["What lies in the folder and gives no number here, and why."]
        parts.append(
            Section(
                "skipped",
                "Not counted",
                words,
                tables=[_skipped_table(skipped)],
                notes=_more(len(skipped), "skipped.csv"),
            )
        )
    return parts


def _more(count: int, name: str) -> list[str]:
    return [f"The first {MOST_ROWS} of {count}; {name} has all."] if count > MOST_ROWS else []


def _counted(values: Any) -> str:
    counts = values.value_counts()
    return "; ".join(f"{value} ({count} runs)" for value, count in counts.items()) if len(counts) else "not recorded"


def _commits(runs: Any) -> Any:
    dirty = runs["git_dirty"].map(lambda flag: " with uncommitted changes" if flag == 1 else "")
    return runs["git_commit"].map(lambda commit: f"commit {commit[:12]}" if commit else "commit not recorded") + dirty


def _times(starts: float) -> str:
    return f"{starts:.0f}" if math.isfinite(starts) else "not recorded"


def _started(runs: Any) -> list[str]:
    """How often the runs were started, where they say so, and a line for each that went on with other values."""
    if not runs["starts"].notna().any():
        return []
    found = runs[runs["mixed"].fillna("") != ""]
    lines = [f"Times that a run was started: {_counted(runs['starts'].map(_times))}."]
    lines += [f"Mixed: {run.path}, {run.mixed}." for run in found.head(MOST_MIXED).itertuples()]
    return [*lines, f"{len(found)} runs are mixed; runs.csv has all."] if len(found) > MOST_MIXED else lines


def _versions(collection: Collection, keys: Any) -> Any:
    words = {
        key: ", ".join(f"{name} {value}" for name, value in (collection.settings_of(key)["versions"] or {}).items())
        for key in keys.unique()
    }
    return keys.map(words)


def _missing_command(view: View) -> list[str]:
    """The command that trains what the ladder still lacks, in the settings of its other runs."""
    assert view.group is not None
    runs, table = view.group.runs, view.ladder.table
    lacking = table[(table["n"] == 0) & (table["diverged"] == 0) & (table["status"] != NO_EFFECT)]["step"]
    on_ladder = runs[runs["step"].notna()]
    if not len(lacking) or not len(on_ladder):
        return []
    example = on_ladder.iloc[-1]["command"].split()
    apart = ("+step=", "step=", "seed=", "recipe=", "roadmap=")
    kept = [word for word in example[2:] if not word.startswith(apart)]
    road = view.group.road
    kept += [f"roadmap={road.name}"] if road is not DEFAULT else []
    seeds = ",".join(str(seed) for seed in sorted(on_ladder["seed"].unique()))
    return [
        "To train what is missing: "
        + " ".join([f"{train_command()} -m", f"+step={','.join(lacking)}", *kept, f"seed={seeds}"])
    ]


def _runs_table(runs: Any) -> Table:
    heads = ("run", "seed", "status", "top-1", "minutes", "command")
    rows = []
    for run in runs.head(MOST_ROWS).itertuples():
        top1 = run.top1 if math.isfinite(run.top1) else None
        rows.append(
            [
                (run.step if isinstance(run.step, str) else run.label, None),
                (str(run.seed), float(run.seed)),
                (run.status, None),
                ("–" if top1 is None or run.status != FINISHED else f"{top1:.2f}", top1),
                (f"{run.wall_seconds / 60:.1f}", float(run.wall_seconds)),
                (run.command, None),
            ]
        )
    return Table(heads, rows, code=(5,), text=(2, 5))


def _skipped_table(skipped: Sequence[Skipped]) -> Table:
    rows = [[(item.path, None), (item.state, None), (item.why, None)] for item in skipped[:MOST_ROWS]]
    return Table(("path", "state", "why"), rows, text=(1,), wrap=(2,))
