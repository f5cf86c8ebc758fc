"""Published numbers of the roadmaps, kept as printed in the CSV file that each names (the paper's in `paper.csv`)."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from roadmap.errors import DesignError
from roadmap.files import found, read

DEFAULT = "convnext"
# The GFLOPs column of Table 10 slipped by one line in its last three rows: the printed 4.46 and 4.49 are the counted
# values of the row below. Figure 2 prints 4.2, 4.5, 4.5, and Table 11 has no such slip.
COUNTED_GFLOPS = {("tiny", "layer_norm"): 4.15, ("tiny", "separate_downsampling"): 4.46, ("tiny", "swin_t"): 4.49}


@dataclass(frozen=True)
class PaperRow:
    """One published row.

    `gflops` as printed, None where nothing was; `gflops_counted` with Table 10's slip put right (GMACs at 224 px).
    """

    regime: str
    order: int
    step: str
    section: str
    label: str
    top1: float  # per cent, ImageNet-1K validation
    top1_std: float | None
    seeds: int | None
    gflops: float | None
    gflops_counted: float | None
    adopted: bool  # False: drawn hatched, not carried on
    note: str

    @property
    def is_reference(self) -> bool:
        """True for Swin, which is no step of the ladder."""
        return self.section == "reference"


def _parse(row: dict[str, str], roadmap: str) -> PaperRow:
    gflops = float(row["gflops"]) if row["gflops"] else None
    slipped = COUNTED_GFLOPS if roadmap == DEFAULT else {}
    return PaperRow(
        regime=row["regime"],
        order=int(row["order"]),
        step=row["step"],
        section=row["section"],
        label=row["paper_label"],
        top1=float(row["top1"]),
        top1_std=float(row["top1_std"]) if row["top1_std"] else None,
        seeds=int(row["seeds"]) if row["seeds"] else None,
        gflops=gflops,
        gflops_counted=slipped.get((row["regime"], row["step"]), gflops),
        adopted=row["adopted"] != "no",
        note=row["note"],
    )


@cache
def rows(roadmap: str = DEFAULT) -> tuple[PaperRow, ...]:
    """Every published row of a roadmap in all regimes, in the order of the tables; none where nothing was published.

    Raises:
        DesignError: its file of numbers is missing or has other columns.
    """
    place = found("roadmap")[roadmap]
    name = read(place)["roadmap"].get("published")
    if not name:
        return ()
    path = next((folder / name for folder in (place.parent, Path(__file__).parent) if (folder / name).is_file()), None)
    if path is None:
        raise DesignError(f"{place}: published={name} is no file beside it")
    with path.open(newline="") as file:
        try:
            return tuple(_parse(row, roadmap) for row in csv.DictReader(file))
        except (KeyError, ValueError) as error:
            raise DesignError(f"{path}: not a table of published numbers ({error})") from None


def row(step: str, regime: str = "tiny", roadmap: str = DEFAULT) -> PaperRow | None:
    """The published row of a step, or None where there is none (regime micro, steps of one's own)."""
    return next((row for row in rows(roadmap) if (row.step, row.regime) == (step, regime)), None)
