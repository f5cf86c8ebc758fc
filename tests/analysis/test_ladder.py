"""The table of a ladder: means, gains and verdicts from runs with known answers, and the paper's numbers as printed."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from scipy.stats import t as student

from analysis.agreement import agreement_of
from analysis.collect import collect
from analysis.groups import groups_of
from analysis.ladder import ladder_of, paper_ladder
from analysis.summary import summary_of
from roadmap import STEPS, paper
from tests.analysis import factory

NAMES = [step.name for step in STEPS]
PUBLISHED = {row.step: row.top1 for row in paper.rows() if row.regime == "tiny"}


def ladder_from(folder, records):
    return ladder_of(groups_of(collect(factory.write_all(folder, records)))[0][0])


def test_one_row_per_step_in_ladder_order(tmp_path):
    table = ladder_from(tmp_path, factory.ladder(PUBLISHED.get)).table
    assert table["step"].tolist() == NAMES
    assert table["order"].tolist() == list(range(17))


def test_means_gains_and_verdicts(tmp_path):
    records = factory.ladder(PUBLISHED.get, seeds=range(5), noise=0.05)
    ladder = ladder_from(tmp_path, records)
    for name in NAMES:
        own = [record["top1"] for record in records if record["step"] == name]
        assert ladder.row(name)["top1"] == pytest.approx(sum(own) / 5)
    assert ladder.blocked
    assert ladder.sigma == pytest.approx(0.05, rel=0.3)
    assert (ladder.table["gain"].dropna() - ladder.table["paper_gain"].dropna()).abs().max() < 0.12
    verdicts = ladder.table.set_index("step")["verdict"]
    assert verdicts["enhanced_recipe"] == verdicts["width"] == verdicts["stage_ratio"] == "gain"  # 2.7 to 0.7 points
    assert verdicts["depthwise"] == verdicts["move_up_depthwise"] == "loss"
    assert verdicts["resnet50"] == ""
    row = ladder.row("width")
    assert row["gain_low"] < PUBLISHED["width"] - PUBLISHED["depthwise"] < row["gain_high"]
    assert row["gain"] == pytest.approx(row["top1"] - ladder.row("depthwise")["top1"])


def test_the_interval_beside_a_verdict_goes_with_it(tmp_path):
    """No interval of the table leaves 0 out where the verdict is "within noise"; those of a gain alone do."""
    ladder = ladder_from(tmp_path, factory.ladder(lambda name: PUBLISHED[name], noise=0.25, rng=3))
    rows = ladder.table[ladder.table["verdict"] == "within noise"]
    assert ((rows["joint_low"] < 0) & (rows["joint_high"] > 0)).all()
    assert ((rows["gain_low"] > 0) | (rows["gain_high"] < 0)).any()
    assert ladder.tests == 16
    assert (ladder.table["mde"].dropna() > ladder.table["gain_high"].dropna() - ladder.table["gain"].dropna()).all()
    assert ladder.row("enhanced_recipe")["paper_gain_seeds"] < ladder.row("gelu")["paper_gain_seeds"]


def test_a_verdict_that_rests_on_the_pooled_noise_does_not_survive_welch(tmp_path):
    ladder = ladder_from(tmp_path, factory.ladder(PUBLISHED.get, seeds=range(3), noise=0.1))
    welch = ladder.table.set_index("step")["survives_welch"]
    assert welch["enhanced_recipe"] == "yes" and "no" in set(welch)
    assert (welch[ladder.table.set_index("step")["verdict"] == "within noise"] == "").all()
    assert any("survive Welch's test" in line and "Brown-Forsythe p =" in line for line in summary_of(ladder, None))


@pytest.mark.numeric
def test_unequal_noise_is_seen_and_said(tmp_path):
    records = factory.ladder(PUBLISHED.get, seeds=range(8), noise=0.05)
    random = np.random.default_rng(0)
    for one in records:
        if one["step"] in ("width", "gelu"):
            one["top1"] += 0.6 * random.standard_normal()
    ladder = ladder_from(tmp_path, records)
    assert max(ladder.equal_variance) < 0.01
    assert any("differs between steps, so the verdicts are doubtful" in line for line in summary_of(ladder, None))


def test_gains_are_over_the_parent_not_the_row_above(tmp_path):
    table = ladder_from(tmp_path, factory.ladder(PUBLISHED.get, noise=0, seed_effect=0)).table.set_index("step")
    assert table["gain"]["kernel_11"] == pytest.approx(PUBLISHED["kernel_11"] - PUBLISHED["move_up_depthwise"])
    assert table["gain"]["gelu"] == pytest.approx(PUBLISHED["gelu"] - PUBLISHED["kernel_7"])


def test_single_runs_get_no_verdict_and_no_interval(tmp_path):
    ladder = ladder_from(tmp_path, factory.ladder(PUBLISHED.get, seeds=[0]))
    assert set(ladder.table["verdict"]) == {"", "n = 1"}
    assert ladder.table["gain_low"].isna().all()
    assert ladder.table["gain"].notna().sum() == 16
    assert not any("noise does not explain" in line for line in summary_of(ladder, agreement_of(ladder)))


def test_one_single_step_among_many_gets_no_verdict(tmp_path):
    records = [r for r in factory.ladder(PUBLISHED.get) if not (r["step"] == "gelu" and r["seed"])]
    ladder = ladder_from(tmp_path, records)
    assert ladder.row("gelu")["verdict"] == ladder.row("fewer_activations")["verdict"] == "n = 1"
    assert math.isnan(ladder.row("gelu")["gain_low"])
    assert math.isnan(ladder.row("gelu")["p_holm"])
    assert ladder.row("fewer_norms")["verdict"] != "n = 1"


def test_a_diverged_run_is_no_number_and_costs_the_verdict(tmp_path):
    records = [r for r in factory.ladder(PUBLISHED.get) if not (r["step"] == "gelu" and r["seed"] == 2)]
    records.append(factory.record("gelu", 2, 10.0, status="diverged"))
    ladder = ladder_from(tmp_path, records)
    row = ladder.row("gelu")
    assert (row["n"], row["diverged"], row["status"], row["verdict"]) == (2, 1, "partial", "diverged")
    assert row["top1"] > 80
    for name in ("gain", "joint", "gain_difference", "paired", "welch"):  # survivors are no fair sample
        assert math.isnan(row[f"{name}_low"])
    assert "gelu" not in agreement_of(ladder).steps and "fewer_activations" not in agreement_of(ladder).steps
    assert any("1 of 3 runs diverged" in line for line in summary_of(ladder, None))


def test_from_first_to_last_has_no_interval_where_the_last_diverged(tmp_path):
    records = [r for r in factory.ladder(PUBLISHED.get) if not (r["step"] == NAMES[-1] and r["seed"] == 2)]
    records.append(factory.record(NAMES[-1], 2, 10.0, status="diverged"))
    assert "no interval: runs diverged" in summary_of(ladder_from(tmp_path, records), None)[0]


def test_a_partial_study_says_what_is_missing(tmp_path):
    ladder = ladder_from(tmp_path, factory.ladder(PUBLISHED.get, steps=["resnet50", "kernel_7"]))
    assert (ladder.table["status"] == "missing").sum() == 15
    assert ladder.table["gain"].isna().all()
    assert agreement_of(ladder) is None
    text = " ".join(summary_of(ladder, None))
    assert "2 of 17 steps" in text
    assert "Not trained: " in text and "stage ratio" in text


@pytest.mark.numeric
def test_agreement_with_the_paper(tmp_path):
    same = agreement_of(ladder_from(tmp_path / "a", factory.ladder(PUBLISHED.get, noise=0.001, seed_effect=0)))
    assert len(same.steps) == 15 and "enhanced_recipe" not in same.steps
    assert same.over_steps.estimate == pytest.approx(1, abs=0.01)
    assert same.over_noise.low < same.ceiling.estimate < same.over_noise.high == pytest.approx(1, abs=0.01)
    assert same.recipe_gain == pytest.approx(2.69, abs=0.01) and same.paper_recipe_gain == pytest.approx(2.69)
    assert same.recipe_difference.low < 0 < same.recipe_difference.high
    upside_down = factory.ladder(lambda name: 160 - PUBLISHED[name], noise=0.001, seed_effect=0)
    opposite = agreement_of(ladder_from(tmp_path / "b", upside_down))
    assert opposite.over_steps.estimate == pytest.approx(-1, abs=0.01)
    assert opposite.over_noise.high < 0


@pytest.mark.numeric
def test_more_noise_leaves_less_to_be_reached(tmp_path):
    quiet, loud = (
        agreement_of(ladder_from(tmp_path / str(noise), factory.ladder(PUBLISHED.get, noise=noise)))
        for noise in (0.05, 0.8)
    )
    assert loud.ceiling.estimate < quiet.ceiling.estimate < 1
    assert loud.over_noise.high - loud.over_noise.low > quiet.over_noise.high - quiet.over_noise.low


@pytest.mark.numeric
def test_the_two_published_regimes_stand_beside_it(tmp_path):
    found = agreement_of(ladder_from(tmp_path, factory.ladder(PUBLISHED.get)))
    base = {row.step: row.top1 for row in paper.rows() if row.regime == "base"}
    pairs = [
        [round(one[step.name] - one[step.parent], 2) for one in (PUBLISHED, base)]
        for step in STEPS
        if step.parent and step.delta
    ]
    assert found.regime_names == ("tiny", "base")
    assert found.regimes.estimate == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)
    assert (found.regimes.low, found.regimes.high) == pytest.approx((0.02, 0.85), abs=0.01)


@pytest.mark.numeric
def test_a_gain_of_nothing_has_no_sign_and_no_rank(tmp_path):
    """Nor has what least squares makes of equal top-1s, some 1e-14 on either side of 0."""
    flat = ladder_from(tmp_path, factory.ladder(lambda name: 80.1, noise=0, seed_effect=0))
    assert set(flat.table["gain"].dropna()) == {0.0}
    found = agreement_of(flat)
    assert math.isnan(found.over_steps.estimate)
    assert math.isnan(found.over_noise.low) and math.isnan(found.ceiling.estimate)


@pytest.mark.numeric
def test_differences_of_gains_hold_the_noise_of_both(tmp_path):
    """Welch's interval of two differences, pooled on either side."""
    ladder = ladder_from(tmp_path, factory.ladder(PUBLISHED.get, noise=0.2))
    row = ladder.row("width")
    stds = [row.top1_std for row in paper.rows() if row.regime == "tiny" and row.top1_std is not None]
    published, df = math.sqrt(sum(std**2 for std in stds) / len(stds)), 2 * len(stds)
    own, other = ladder.sigma**2 * 2 / 3, published**2 * 2 / 3
    joint = (own + other) ** 2 / (own**2 / ladder.means.df + other**2 / df)
    half = student.ppf(0.975, joint) * math.sqrt(own + other)
    assert row["gain_difference_low"] == pytest.approx(row["gain_difference"] - half)
    assert row["gain_difference_high"] == pytest.approx(row["gain_difference"] + half)
    base = ladder_from(tmp_path / "base", factory.ladder(PUBLISHED.get, noise=0.2, regime="base")).row("width")
    assert math.isfinite(base["gain_difference_low"])  # single runs: the other regime's spread stands in
    assert "gain_difference_low" not in paper_ladder("tiny").table


@pytest.mark.parametrize("regime", ["tiny", "base"])
def test_paper_ladder_holds_the_published_numbers(regime):
    ladder = paper_ladder(regime)
    for row in paper.rows():
        if row.regime != regime or row.is_reference:
            continue
        ours = ladder.row(row.step)
        assert ours["top1"] == row.top1
        assert ours["gmacs"] == row.gflops_counted
        assert ours["adopted"] == row.adopted
        assert ours["std"] == row.top1_std or (row.top1_std is None and math.isnan(ours["std"]))
    assert ladder.reference.is_reference
    if regime == "base":
        assert set(ladder.table["verdict"]) == {"", "n = 1"}


def test_paper_ladder_notes_the_values_that_were_put_right():
    assert "BN" in paper_ladder("tiny").notes[0]
    assert not paper_ladder("base").notes


def test_own_rows_are_not_called_by_the_papers_weights(tmp_path):
    micro = ladder_from(tmp_path / "micro", factory.ladder(PUBLISHED.get, seeds=[0]))
    tiny = ladder_from(tmp_path / "tiny", factory.ladder(PUBLISHED.get, seeds=[0], regime="tiny"))
    assert (micro.row("resnet50")["label"], tiny.row("resnet50")["label"]) == (
        "ResNet (original recipe)", "ResNet-50 (original recipe)",
    )  # fmt: skip
    assert "PyTorch" in paper_ladder("tiny").row("resnet50")["label"]


def test_test_set_error_needs_the_number_of_images(tmp_path):
    known = ladder_from(tmp_path / "a", factory.ladder(lambda name: 80.0, noise=0.1))
    assert known.row("gelu")["sampling_error"] == pytest.approx(0.4, abs=0.01)
    unknown = ladder_from(tmp_path / "b", factory.ladder(lambda name: 80.0, noise=0.1, eval_size=0))
    assert math.isnan(unknown.row("gelu")["sampling_error"])
