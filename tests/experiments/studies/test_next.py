"""The study that asks what to train next: what finished is found, its proposals are frozen, a round does not change."""

from collections.abc import Callable
from pathlib import Path

from experiments.studies import launch
from roadmap.steps import DEFAULT
from tests.experiments.studies.test_studies import SMALL, Outcome, call

__all__ = ["call"]
PAIRED = ("+study=paired_sets", "study.params.sets=8", *SMALL)
NEXT = ("+study=next", "study.params.sets=2", *SMALL)


def test_proposals_follow_from_what_finished_and_stay(call: Callable[..., Outcome], tmp_path: Path) -> None:
    assert call(*PAIRED)[0] == 0
    found = launch.finished_runs(["seed=0", *SMALL, f"runs_dir={tmp_path / 'runs'}"], DEFAULT)
    assert len({one for one, _, _ in found}) == 8
    other = ["seed=0", *SMALL, "recipe.weight_decay=0.2", f"runs_dir={tmp_path / 'runs'}"]
    assert launch.finished_runs(other, DEFAULT) == []  # other settings answer another question

    code, told = call(*NEXT)
    assert code == 0 and "2 runs, 2 to do" in told and "half width of shapley" in told
    (first,) = (tmp_path / "runs" / "studies").glob("next-*.json")
    frozen = first.read_bytes()
    code, told = call(*NEXT)  # resumed: what has finished since changes nothing
    assert code == 0 and "2 runs, 0 to do" in told
    assert first.read_bytes() == frozen
    code, told = call(*NEXT, "study.params.round=2", "study.params.question=gelu")
    assert code == 0 and "2 runs, 2 to do" in told
    assert len(list((tmp_path / "runs" / "studies").glob("next-*.json"))) == 2
    whole = launch.finished_runs(["seed=0", *SMALL, f"runs_dir={tmp_path / 'runs'}"], DEFAULT)
    next((tmp_path / "runs").glob("*/result.json")).write_text("{}")  # a damaged record is left out
    assert len(launch.finished_runs(["seed=0", *SMALL, f"runs_dir={tmp_path / 'runs'}"], DEFAULT)) == len(whole) - 1
