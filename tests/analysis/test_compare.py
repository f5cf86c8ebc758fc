"""`--compare A B C`, and the configurations of a report that are no row of the ladder."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats as distributions

from analysis.__main__ import main
from analysis.collect import collect
from analysis.compare import compare
from analysis.further import further_of
from analysis.groups import groups_of
from analysis.ladder import ladder_of
from analysis.stats import paired
from experiments.errors import ConfigError
from roadmap.effects.testing import holm
from tests.analysis import factory
from tests.analysis.composed import record

TOP1 = {  # what was typed -> top-1 of the seeds 0, 1, 2
    ("+step=kernel_7",): (80.0, 80.4, 80.3),
    ("+step=gelu",): (81.1, 81.4, 81.5),
    ("+step=kernel_7", "design.kernel_size=33"): (79.0, 79.5, 79.4),
    ("+step=kernel_7", "recipe.label_smoothing=0"): (80.1, 80.3, 80.4),
    ("+step=kernel_7", "add=[layer_norm]"): (82.0, 82.5, 82.2),
}


def label_of(typed: Sequence[str]) -> str:
    return str(record(typed, 1.0)["label"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for typed, values in TOP1.items():
        for seed, top1 in enumerate(values):
            factory.write(folder, record([*typed, f"seed={seed}"], top1))
    factory.write(folder, record(["+step=layer_norm", "data=synthetic"], 50.0))
    return folder


@pytest.fixture(scope="module")
def ids() -> dict[tuple[str, ...], str]:
    return {typed: str(record(typed, 1.0)["config_id"])[:12] for typed in TOP1} | {
        ("synthetic",): record(["+step=layer_norm", "data=synthetic"], 1.0)["config_id"][:12]
    }


def table_of(runs: Path, names: Sequence[str]) -> Any:
    found = collect(runs)
    return compare(found, found.runs, names).set_index("name", drop=False)


def test_two_configurations_are_compared_in_pairs_of_seeds(runs: Path, ids: dict[tuple[str, ...], str]) -> None:
    """With the same seeds on both sides the additive model is Student's paired test."""
    ours, theirs = ("+step=kernel_7", "design.kernel_size=33"), ("+step=gelu",)
    table = table_of(runs, [ids[theirs], ids[ours]])
    test = paired(TOP1[ours], TOP1[theirs])
    row = table.iloc[1]
    assert (row["gain"], row["gain_low"], row["gain_high"], row["p"]) == pytest.approx(
        (test.estimate, test.low, test.high, test.p)
    )
    assert (row["n"], row["seeds"], row["verdict"]) == (3, "0 1 2", "loss")
    assert row["differs"] == "design.act=relu (gelu), design.kernel_size=33 (7)"
    assert distributions.ttest_rel(TOP1[ours], TOP1[theirs]).pvalue == pytest.approx(row["p"])


def test_p_values_are_holms_over_the_comparisons(runs: Path, ids: dict[tuple[str, ...], str]) -> None:
    table = table_of(runs, [ids[typed] for typed in TOP1])
    assert table["p_holm"].tolist()[1:] == pytest.approx(holm(table["p"].tolist()[1:]).tolist())
    assert (table["p_holm"] >= table["p"])[1:].all() and (table["p_holm"] > table["p"]).any()


def test_a_name_is_a_label_a_step_or_the_start_of_an_id(runs: Path, ids: dict[tuple[str, ...], str]) -> None:
    typed = label_of(("+step=kernel_7", "design.kernel_size=33"))
    table = table_of(runs, ["gelu", "kernel_7", typed, ids[("+step=kernel_7", "add=[layer_norm]")]])
    assert table["config_id"].str.startswith(ids[("+step=kernel_7",)]).tolist() == [False, True, False, False]
    assert table["gain"].tolist()[1:] == pytest.approx([-1.1, -2.0333, 0.9], abs=1e-3)


def test_a_name_of_several_configurations_tells_them_apart(runs: Path) -> None:
    with pytest.raises(ConfigError, match=r"kernel_7 means 2 configurations: .*recipe.label_smoothing=0"):
        table_of(runs, ["kernel_7", "gelu"])


def test_what_cannot_be_compared_is_one_line(runs: Path, ids: dict[tuple[str, ...], str]) -> None:
    for names, said in (
        (["gelu", "gelo"], "--compare gelo: no run has this label, step or config_id .*; near: gelu"),
        (["gelu", ids[("synthetic",)]], r"data\.\w+=.*, but .* in gelu; only runs of the same data"),
        (["gelu", "gelu"], "is named twice"),
        (["gelu"], "at least two"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            table_of(runs, names)
        assert "\n" not in str(caught.value)


def test_the_command_writes_the_comparison_and_prints_it(
    runs: Path, ids: dict[tuple[str, ...], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["gelu", ids[("+step=kernel_7",)]]
    assert main([str(runs), "--out", str(tmp_path), "--formats", "svg", "--compare", *names]) == 0
    with (tmp_path / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names
    assert float(rows[1]["gain"]) == pytest.approx(-1.1)
    said = capsys.readouterr().out
    assert "−1.10" in said and names[1] in said
    page = (tmp_path / "compare.html").read_text()
    assert "−1.10" in page and (tmp_path / "compare.svg").stat().st_size > 5000
    assert not (tmp_path / "report.html").exists()


def test_every_finished_configuration_is_in_the_ladder_or_beside_it(runs: Path) -> None:
    found = collect(runs)
    groups, aside = groups_of(found)
    assert not aside
    group = next(group for group in groups if group.data == "digits" and group.steps == 2)
    further = further_of(group, ladder_of(group), found)
    assert further is not None
    rows = further.table.set_index("differs")
    on_ladder = set(group.runs.loc[group.runs["step"].notna(), "config_id"])
    ours = found.runs[(found.runs["regime"] == group.regime) & (found.runs["data"] == group.data)]
    assert set(ours["config_id"]) == on_ladder | set(rows["config_id"])
    assert not on_ladder & set(rows["config_id"])
    kernel = rows.loc["design.kernel_size=33 (7)"]
    assert (kernel["over"], kernel["n"]) == ("kernel size → 7", 3)
    assert kernel["gain"] == pytest.approx(-0.9333, abs=1e-3) and kernel["verdict"] == "loss"
    assert rows.loc["recipe.label_smoothing=0 (0.1)"]["verdict"] == "within noise"
    assert rows.loc["design.norm=ln (bn)"]["gain"] == pytest.approx(2, abs=1e-3)


def test_a_diverged_run_costs_the_verdict(runs: Path, tmp_path: Path) -> None:
    for typed in list(TOP1)[:2]:
        for seed in range(3):
            one = record([*typed, f"seed={seed}"], TOP1[typed][seed])
            lost = {"status": "diverged"} if (typed, seed) == (("+step=gelu",), 2) else {}
            factory.write(tmp_path, one | lost)
    row = table_of(tmp_path, ["kernel_7", "gelu"]).loc["gelu"]
    assert (row["n"], row["diverged"], row["verdict"]) == (2, 1, "diverged")
    assert row["gain_low"] != row["gain_low"]


def test_runs_of_typed_flags_alone_get_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ("+step=kernel_7", "design.kernel_size=33")
    factory.write(tmp_path / "runs", record(typed, 80.0))
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--formats", "svg"]) == 0
    line = "1 runs, none of a ladder (--compare shows them); this page shows the published numbers."
    assert line in capsys.readouterr().out and line in (tmp_path / "out" / "report.html").read_text()


def test_published_numbers_have_no_configurations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "--out", str(tmp_path), "--compare", "kernel_7", "gelu"]) == 2
    assert "--compare needs a folder with runs" in capsys.readouterr().err
