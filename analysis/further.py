"""Further configurations: what was trained on the same data and budget and is no row of the ladder."""

from dataclasses import dataclass

import pandas as pd

from analysis.collect import Collection
from analysis.configurations import NOTE, cells_of, differences, gains_of, in_words, settings_of
from analysis.gains import FINISHED
from analysis.groups import Group
from analysis.ladder import Ladder
from analysis.page import Drawing, Section, Table
from analysis.tables import ALONE, JOINT

MOST_SHOWN = 24  # rows of the figure; the table has all
_HEADS = {
    "name": "configuration",
    "over": "nearest row",
    "top1": "top-1 (n)",
    "gain": JOINT,
    "gain_low": ALONE,
    "p_holm": "p (Holm)",
    "verdict": "verdict",
    "differs": "has otherwise (the row's value)",
    "params": "params (M)",
    "gmacs": "GMACs",
}


@dataclass(frozen=True)
class Further:
    """A row per configuration that is no row of the ladder, each against the nearest row that was trained.

    Attributes:
        table: see `configurations.COLUMNS`.
        shown: the rows to draw; None where none has a gain.
        notes: for under the table.
    """

    table: pd.DataFrame
    shown: pd.DataFrame | None
    notes: tuple[str, ...]


def further_of(group: Group, ladder: Ladder, collection: Collection) -> Further | None:
    """The configurations of a group's regime and profile that are in no row of its ladder; None without one."""
    rows = group.runs[group.runs["step"].notna()]
    own = group.runs[group.runs["step"].isna()]
    runs = pd.concat([rows, own, group.other], ignore_index=True)
    labels = dict(zip(ladder.table["step"], ladder.table["label"], strict=True))
    finished = rows[rows["status"] == FINISHED].drop_duplicates("config_id")
    settings = {run.config_id: settings_of(run, collection) for run in runs.drop_duplicates("config_id").itertuples()}
    # in ladder order: of rows that are as near the first is taken
    order = {step: place for place, step in enumerate(labels)}
    steps = finished.sort_values("step", key=lambda names: names.map(order))["config_id"].tolist()
    others = runs[~runs["config_id"].isin(rows["config_id"])].drop_duplicates("config_id")
    if not len(others):
        return None
    over = {
        config: min(steps, key=lambda step: len(differences(settings[config], settings[step])), default=None)
        for config in others["config_id"]
    }
    words = {one: in_words(settings[one], settings[over[one]]) if over[one] else "" for one in others["config_id"]}
    # a label names the set and typed flags of the network; what tells apart those that share one is in words
    shared = set(rows["label"]) | set(others["label"][others["label"].duplicated(keep=False)])
    names = {
        config: f"{label}, {words[config]}" if label in shared and words[config] else label
        for config, label in zip(others["config_id"], others["label"], strict=True)
    }
    names |= {config: labels[step] for config, step in zip(finished["config_id"], finished["step"], strict=True)}
    found = gains_of(runs, over, names)
    table = found.table.assign(differs=[words[one] for one in found.table["config_id"]])
    unknown = dict(zip(others["config_id"], others["unknown"], strict=True))
    missing = sorted({name for text in unknown.values() for name in text.split("+") if name})
    notes = [f"{NOTE} The noise is that of all runs of this ladder and this table."]
    if missing:
        notes.append(f"There is no file here of {', '.join(missing)}: runs that hold them are at no step.")
    drawn = table[table["gain"].notna()]
    if len(drawn) > MOST_SHOWN:
        notes.append(f"The figure shows the {MOST_SHOWN} largest differences; the table and further.csv have all.")
        drawn = drawn.loc[drawn["gain"].abs().sort_values(ascending=False).index[:MOST_SHOWN]].sort_index()
    return Further(table, drawn if len(drawn) else None, tuple(notes))


def further_section(further: Further, figures: list[Drawing]) -> Section:
    """The section of the page."""
    words = [
        "Everything else that was trained in this regime on the same data and budget, against the row of the ladder "
        "from which it differs in the fewest settings."
    ]
    table = Table(*cells_of(further.table, _HEADS), css="ladder", wrap=(7,), text=(1,))
    return Section("further", "Further configurations", words, figures, [table], further.notes)
