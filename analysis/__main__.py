"""`python -m analysis RUNS --out DIR`: figures, tables and a report from run records or from the paper alone."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from roadmap import UserError
from roadmap.errors import StorageError
from roadmap.escape import visible
from roadmap.pipes import quietly, refused
from roadmap.program import place
from roadmap.steps import DEFAULT, Roadmap, roadmap_named

PAPER = "paper"


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument(
        "runs", metavar="RUNS", type=place, help=f"the folder with the runs; “{PAPER}” stands for the published numbers"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="folder for figures, tables and report.html"
    )
    parser.add_argument(
        "--roadmap", metavar="NAME", default=DEFAULT.name, help="whose ladder it is (default: %(default)s)"
    )
    parser.add_argument(
        "--compare",
        metavar="NAME",
        nargs="+",
        help="instead of the report, these configurations against each other, the first as the reference: labels as "
        "run folders show them, steps, or config_ids (8 digits or more)",
    )
    parser.add_argument(
        "--select",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="only these runs, e.g. data=cifar10 or recipe.lr=0.002; repeatable",
    )
    parser.add_argument(
        "--size", choices=("page", "column", "slide"), default="page", help="what the figure files are for"
    )
    parser.add_argument("--formats", default="png,svg,pdf", help="file types of the figures (default: png,svg,pdf)")
    parser.add_argument(
        "--document",
        metavar="FILE",
        type=Path,
        help="put the numbers between the markers of this Markdown page, e.g. docs/results.md",
    )
    parser.add_argument(
        "--speeds",
        metavar="FILE",
        type=Path,
        help="results/bench/<device>.json with `bench step --rows all --size 224`: speeds for the paper's networks",
    )
    parser.add_argument(
        "--no-cache", action="store_true", help="read every record anew and keep nothing for the next look"
    )
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m analysis") -> int:
    """Run the command, which calls itself `prog`; returns the exit code."""
    options = _parser(prog).parse_args(arguments)
    try:
        return _analyse(options)
    except UserError as error:
        return refused(error)


def _analyse(options: argparse.Namespace) -> int:
    from analysis.speeds import NO_SPEEDS, read_speeds
    from experiments.errors import ConfigError

    formats, road = _formats(options.formats), roadmap_named(options.roadmap)
    speeds = read_speeds(options.speeds) if options.speeds else NO_SPEEDS
    if options.runs != PAPER:
        return _of_runs(options, road, speeds, formats)
    if options.compare:
        raise ConfigError("--compare needs a folder with runs; it has no meaning for the published numbers")
    return _write(options, _published(road, speeds, f"roadmap={road.name} has no published numbers"), formats)


def _published(road: Roadmap, speeds: Any, without: str) -> list[Any]:
    """The views of a roadmap's published numbers; ConfigError with the line `without` where it has none."""
    from analysis.views import paper_views
    from experiments.errors import ConfigError

    views = paper_views(speeds, road)
    if not views:
        raise ConfigError(without)
    return views


def _of_runs(options: argparse.Namespace, road: Roadmap, speeds: Any, formats: tuple[str, ...]) -> int:
    """Read the runs and write their report, or the comparison that is asked for instead."""
    from analysis.collect import collect
    from analysis.compare import compare, write_comparison
    from analysis.groups import groups_of, select
    from analysis.views import views_of
    from experiments.store.cache import cache_file

    started = time.perf_counter()
    collection = collect(options.runs, None if options.no_cache else cache_file(Path(options.runs)), road)
    chosen = select(collection, options.select)
    if options.compare:
        table = compare(collection, chosen, options.compare)
        with _writing(options.out):
            text = write_comparison(table, collection, options.out, size=options.size, formats=formats)
        print(text)
        return 0
    groups, aside = groups_of(collection, chosen)
    alerts = _unknown(chosen)
    seconds = time.perf_counter() - started
    print(f"{len(collection.runs)} runs read in {seconds:.1f} s ({collection.from_cache} from the cache)")
    if collection.unsealed:
        print(f"unsealed: {collection.unsealed} of them, recorded before there were seals")
    _report_skipped(collection.skipped, aside)
    views = views_of(collection, groups, speeds)
    if not views:
        why = f"{options.runs}: {_why_none(len(collection.runs), len(chosen))}"
        views = _published(road, speeds, f"{why}, and roadmap={road.name} has no published numbers to show")
        alerts.append(f"{why}; this page shows the published numbers.")
        print(visible(alerts[-1]))
    return _write(options, views, formats, alerts=alerts, collection=collection, aside=aside)


def _why_none(read: int, chosen: int) -> str:
    """Why a folder's runs give no ladder."""
    if not read:
        return "no finished run"
    if not chosen:
        return f"none of {read} runs meets --select"
    return f"{chosen} runs, none of a ladder (--compare shows them)"


def _write(
    options: argparse.Namespace,
    views: list[Any],
    formats: tuple[str, ...],
    *,
    alerts: Sequence[str] = (),
    collection: Any = None,
    aside: Sequence[Any] = (),
) -> int:
    """Write a folder per view, the first one's at the top, and say where each page is."""
    from analysis.report import write_view

    links = [(view.title, f"{view.name}/report.html") for view in views[1:]]
    shared = {"collection": collection, "aside": aside, "size": options.size, "formats": formats}
    for i, view in enumerate(views):
        folder = options.out if i == 0 else options.out / view.name
        first = {"others": links, "document": options.document} if i == 0 else {}
        with _writing(folder):
            write_view(view, folder, alerts=alerts, **first, **shared)
        steps = f"{len(view.ladder.measured)} of {len(view.ladder.table)} steps"
        print(visible(f"{folder / 'report.html'}: {view.title}, {steps}"))
    return 0


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Where the answer is written: what the system refuses is one line that names the file."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {error.filename or folder}: {error.strerror or error}") from None


def _unknown(runs: Any) -> list[str]:
    """A line about runs that hold changes, or are in a regime, of which there is no file here."""
    strange = runs[runs["unknown"] != ""]
    if not len(strange):
        return []
    names = ", ".join(sorted({name for text in strange["unknown"] for name in text.split("+")}))
    line = f"{len(strange)} runs are at no step: there is no file here of {names}; put their folder on ROADMAP_PATH."
    print(line)
    return [line]


def _formats(text: str) -> tuple[str, ...]:
    from analysis.theme import FORMATS
    from experiments.errors import ConfigError

    chosen = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in chosen if name not in FORMATS]
    if unknown:
        raise ConfigError(f"--formats {unknown[0]} is not one of: {', '.join(FORMATS)}")
    return chosen


def _report_skipped(*lists: Sequence[object]) -> None:
    """One line per kind of skipped thing, with the first as an example."""
    kinds: dict[str, list[object]] = {}
    for item in (item for items in lists for item in items):
        kinds.setdefault(item.state, []).append(item)  # type: ignore[attr-defined]
    for state, items in kinds.items():
        first = items[0]
        print(f"not counted, {state}: {len(items)}, e.g. {first.path}: {first.why}")  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(quietly(main))
