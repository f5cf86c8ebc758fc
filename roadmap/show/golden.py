"""The golden complexity file: every step of every roadmap, committed, guarded by the paper's numbers."""

import csv
from pathlib import Path

from roadmap import paper
from roadmap.errors import UserError
from roadmap.regimes import REGIMES
from roadmap.show.tables import Row, as_csv, ladder_rows
from roadmap.steps import DEFAULT, ROADMAPS


def golden_rows() -> list[Row]:
    """Every step, 224 px and 1000 classes: roadmap, regime, step, params, macs, activations.

    ConvNeXt's in every regime, those of the other roadmaps in the regimes in which they were published.
    """
    keep = ("step", "params", "macs", "activations")
    return [
        {"roadmap": road.name, "regime": regime, **{key: row[key] for key in keep}}
        for road in ROADMAPS.values()
        for regime in (REGIMES if road is DEFAULT else road.regimes)
        for row in ladder_rows(regime, road=road)
    ]


def deviations(rows: list[Row]) -> list[str]:
    """The rows whose GMACs, to two decimals, are not the paper's (with Table 10's slip put right), one line each."""
    found = []
    for row in rows:
        published = paper.row(row["step"], row["regime"]) if row["roadmap"] == DEFAULT.name else None
        gmacs = round(row["macs"] / 1e9, 2)
        if published and gmacs != published.gflops_counted:
            found.append(
                f"{row['regime']} {row['step']}: {gmacs:.2f} GMACs, the paper has {published.gflops_counted:.2f}"
            )
    return found


def write_golden(path: Path) -> None:
    """Write the golden file anew.

    Raises:
        UserError: some GMACs left the paper's values; nothing is written.
    """
    rows = golden_rows()
    wrong = deviations(rows)
    if wrong:
        raise UserError(f"{path} is not rewritten, because the network left the paper: {'; '.join(wrong)}")
    path.write_text(as_csv(rows) + "\n")


def read_golden(path: Path) -> list[Row]:
    """The rows of the golden file, counts as ints."""
    with path.open(newline="") as file:
        return [{k: int(v) if v.isdigit() else v for k, v in row.items()} for row in csv.DictReader(file)]
