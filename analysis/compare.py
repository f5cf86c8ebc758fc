"""`--compare A B C`: any configurations against each other, the first as the reference."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import theme
from analysis.collect import Collection
from analysis.configurations import NOTE, cells_of, csv_of, gains_of, in_words, settings_of, side_by_side
from analysis.figures.dots import dots_figure
from analysis.page import Drawing, Section, Table, data_uri, render
from analysis.records import profile_of
from analysis.tables import ALONE, JOINT
from experiments.errors import ConfigError
from roadmap.resolve import qualified

LEAST_ID = 8  # digits of a config_id
_HEADS = {
    "name": "configuration",
    "top1": "top-1 (n)",
    "gain": JOINT,
    "gain_low": ALONE,
    "p_holm": "p (Holm)",
    "verdict": "verdict",
    "params": "params (M)",
    "gmacs": "GMACs",
    "seeds": "seeds",
}
_DIFFERS = {"differs": "differs in (the reference's value)"}
AVERAGED = "Top-1 of the averaged weights (EMA), which a change asks for: "


def compare(collection: Collection, runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """A row per named configuration (`configurations.COLUMNS`), with its gain over the first.

    Args:
        collection: where the runs are from.
        runs: those that may be meant.
        names: labels as run folders show them, config_ids (their first 8 digits or more) or steps.

    Raises:
        ConfigError: a name that means none or several configurations, twice the same, or another data set or budget
            than the first.
    """
    if len(names) < 2:
        raise ConfigError("--compare needs at least two configurations, the reference first")
    first = _meant(names[0], runs, collection, None)
    chosen = [first, *(_meant(name, runs, collection, first) for name in names[1:])]
    configs = [run.config_id for run in chosen]
    for name, config in zip(names, configs, strict=True):
        if configs.count(config) > 1:
            raise ConfigError(f"--compare {name}: config_id {config[:12]} is named twice")
    for name, run in zip(names[1:], chosen[1:], strict=True):
        _check_comparable(name, run, names[0], first, collection)
    settings = [settings_of(run, collection) for run in chosen]
    called = dict(zip(configs, names, strict=True))
    over = {config: configs[0] if config != configs[0] else None for config in configs}
    table = gains_of(runs[runs["config_id"].isin(configs)], over, called).table
    return table.assign(differs=["", *(in_words(one, settings[0]) for one in settings[1:])])


def _meant(name: str, runs: pd.DataFrame, collection: Collection, first: Any) -> Any:
    """A run of the configuration that a name means; of several, that of the reference's profile, regime and recipe."""
    steps = [None if step is None else qualified(collection.road.by_name[step]) for step in runs["step"]]
    hit = (runs["label"] == name) | (runs["step"] == name) | (pd.Series(steps, index=runs.index) == name)
    if len(name) >= LEAST_ID:
        hit |= runs["config_id"].str.startswith(name)
    found = runs[hit].drop_duplicates("config_id")
    if not len(found):
        known = dict.fromkeys(one for column in ("label", "step") for one in runs[column] if isinstance(one, str))
        near = get_close_matches(name, known, n=3, cutoff=0.4) or list(known)[:3]
        raise ConfigError(
            f"--compare {name}: no run has this label, step or config_id (at least {LEAST_ID} digits); "
            f"near: {', '.join(near) or 'there is no finished run'}"
        )
    if first is not None:
        for column in ("profile", "regime", "variant"):
            same = found[found[column] == getattr(first, column)]
            found = same if len(same) else found
    if len(found) > 1:
        raise ConfigError(f"--compare {name} means {len(found)} configurations: {_apart(found, collection)}")
    return next(found.itertuples())


def _apart(found: pd.DataFrame, collection: Collection) -> str:
    """Several configurations of one name: their ids with what the others have otherwise than the first."""
    runs = list(found.itertuples())
    flat = [settings_of(run, collection) | _profile(run, collection) for run in runs]
    parts = [f"{run.config_id[:12]} ({in_words(one, flat[0])})" for run, one in zip(runs[1:4], flat[1:4], strict=True)]
    return ", ".join([runs[0].config_id[:12], *parts])


def _profile(run: Any, collection: Collection) -> dict[str, Any]:
    """What a run was trained on and for how much, as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in profile_of(collection.settings_of(run.settings)).items():
        if key != "design":  # the stem's stride is a setting like any other here
            flat |= (
                {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, Mapping) else {key: value}
            )
    return flat


def _check_comparable(name: str, run: Any, reference: str, first: Any, collection: Collection) -> None:
    ours, theirs = _profile(run, collection), _profile(first, collection)
    for key in {**theirs, **ours}:
        if ours.get(key) != theirs.get(key):
            raise ConfigError(
                f"--compare {name}: {key}={ours.get(key)}, but {theirs.get(key)} in {reference}; only runs of the same "
                "data, budget, image size and precision can be compared"
            )


def write_comparison(
    table: pd.DataFrame, collection: Collection, out: Path, *, size: str, formats: tuple[str, ...]
) -> str:
    """Write compare.csv, compare.html and the figure into `out`; returns the table as text.

    The figure is left out where nothing but the reference has a finished run.
    """
    out.mkdir(parents=True, exist_ok=True)
    heads = _HEADS | _DIFFERS
    averaged = table[table["averaged"]]["name"]
    notes = [NOTE]
    notes += [AVERAGED + f"{', '.join(averaged)}."] if len(averaged) else []
    drawn = table[table["gain"].notna()]
    drawings = []
    if len(drawn):
        caption = f"Runs in {collection.source.name}/. Intervals: 95 %. {' '.join(notes[1:])}".strip()
        theme.save(dots_figure(drawn, caption=caption, size=size), out / "compare", formats)
        wide, narrow = (data_uri(dots_figure(drawn, caption=caption, size=one)) for one in ("page", "column"))
        drawings.append(Drawing(wide, narrow, f"Gains over {table['name'].iloc[0]}"))
    section = Section(
        "compare",
        f"Gains over {table['name'].iloc[0]}",
        figures=drawings,
        tables=[Table(*cells_of(table, heads), css="ladder", wrap=(len(heads) - 1,), text=(len(heads) - 2,))],
        notes=notes,
    )
    page = render(
        title="Configurations against each other",
        subtitle=f"Runs in {collection.source.name}/. The reference is {table['name'].iloc[0]}.",
        summary=_summary(table),
        sections=[section],
    )
    (out / "compare.html").write_text(page, encoding="utf-8")
    (out / "compare.csv").write_text(csv_of(table), encoding="utf-8")
    return side_by_side(*cells_of(table, heads))


def _summary(table: pd.DataFrame) -> list[str]:
    """A sentence per verdict."""
    return [
        f"{verdict[0].upper()}{verdict[1:]}: {', '.join(rows['name'])}."
        for verdict, rows in table.iloc[1:].groupby("verdict", sort=False)
    ]
