"""Run records -> one table: nothing lost, nothing wrong averaged in, everything left out is named."""

import json
import os
import shutil
import time

import numpy as np
import pytest

from analysis.collect import collect
from analysis.groups import groups_of, second_regime, select
from analysis.ladder import ladder_of
from analysis.records import flatten
from experiments.config.fields import before_of
from experiments.config.settings import Recipe
from experiments.errors import ConfigError, StorageError
from roadmap import STEPS, Design
from tests.analysis import factory


def value(name):
    return 80 + 0.1 * [step.name for step in STEPS].index(name)


@pytest.fixture
def runs(tmp_path):
    return aged(factory.write_all(tmp_path / "runs", factory.ladder(value)))


def aged(runs):
    """The same folder, its files older than what a cache takes for still changing."""
    for path in runs.rglob("*"):
        os.utime(path, (1e9, 1e9))
    return runs


def states(collection):
    return {item.path: item.state for item in collection.skipped}


def test_a_row_per_run(runs):
    found = collect(runs)
    assert len(found.runs) == 3 * len(STEPS)
    assert not found.skipped
    row = found.runs[(found.runs["step"] == "kernel_7") & (found.runs["seed"] == 1)].iloc[0]
    assert row["changes"].split("+")[-1] == "kernel_7"
    assert (row["data"], row["budget"], row["recipe"], row["plain"]) == ("fashion_mnist", "proxy", "enhanced", 1)
    assert found.settings_of(row["settings"])["batch"] == {"size": 256, "micro": 128}


DAMAGE = {
    "cut off": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "binary": lambda text: "\x00\x01\x02",
    "an array": lambda text: "[1, 2]",
    "foreign": lambda text: json.dumps({"accuracy": 0.8}),
    "text for a number": lambda text: text.replace('"top1": 8', '"top1": "8').replace(
        ', "top1_best"', '", "top1_best"'
    ),
    "not finite": lambda text: json.dumps(json.loads(text) | {"top1": float("nan")}),
    "out of range": lambda text: json.dumps(json.loads(text) | {"top1": 8000.0}),
    "an unknown status": lambda text: json.dumps(json.loads(text) | {"status": "great"}),
    "another step": lambda text: json.dumps(json.loads(text) | {"step": "gelu"}),
    "another design": lambda text: json.dumps(
        json.loads(text) | {"design": json.loads(text)["design"] | {"act": "gelu"}}
    ),
    "an unknown flag": lambda text: json.dumps(json.loads(text) | {"design": {"wings": 2}}),
    "design no object": lambda text: json.dumps(json.loads(text) | {"design": []}),
    "no recipe name": lambda text: json.dumps(json.loads(text) | {"recipe": {}}),
    "deeply nested": lambda text: "[" * 100000,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_records_are_named_and_left_out(runs, kind):
    folder = next(runs.glob("depthwise-*-s1-*"))
    path = folder / "result.json"
    path.write_text(DAMAGE[kind](path.read_text()))
    found = collect(runs)
    assert states(found) == {folder.name: "damaged"}
    assert "\n" not in found.skipped[0].why
    assert len(found.runs) == 3 * len(STEPS) - 1
    assert ladder_of(groups_of(found)[0][0]).row("depthwise")["n"] == 2


def test_foreign_files_half_done_and_failed_runs(runs):
    (runs / "notes.txt").write_text("hello")
    (runs / "photos").mkdir()
    (runs / "photos" / "cat.jpg").write_bytes(b"\xff\xd8")
    (runs / "studies").mkdir()
    (runs / ".hidden").mkdir()
    half = next(runs.glob("gelu-*-s2-*"))
    (half / "result.json").unlink()
    (half / "config.yaml").write_text("step: gelu\nbudget: {name: proxy}\ndata: {name: fashion_mnist}\n")
    failed = next(runs.glob("width-*-s2-*"))
    (failed / "result.json").unlink()
    (failed / "config.yaml").write_text("][")
    (failed / "error.json").write_text(json.dumps({"message": "out of\nmemory"}))
    full = next(runs.glob("width-*-s1-*"))
    (full / "result.json").unlink()
    (full / "error.json").write_text(json.dumps({"message": "no space", "machine": True}))
    found = collect(runs)
    assert states(found) == {
        "notes.txt": "foreign", "photos": "foreign", half.name: "half done", failed.name: "failed",
        full.name: "half done",
    }  # fmt: skip
    assert next(item.why for item in found.skipped if item.path == full.name).startswith("no space; the same command")
    by_state = {item.state: item for item in found.skipped}
    assert by_state["failed"].why == "out of memory"
    assert (by_state["failed"].step, by_state["failed"].seed) == ("width", 2)
    ladder = ladder_of(groups_of(found)[0][0])
    assert ladder.row("gelu")["status"] == "partial"
    assert ladder.row("gelu")["n"] == 2


def test_records_in_subfolders_links_and_a_single_run(runs, tmp_path):
    whole = collect(tmp_path)
    assert len(whole.runs) == 3 * len(STEPS)
    one = next(runs.glob("gelu-*-s0-*"))
    assert len(collect(one).runs) == 1
    (runs / "loop").symlink_to(runs)
    assert len(collect(runs).runs) == 3 * len(STEPS)


def test_unreadable_folder_is_reported(runs):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    blocked = runs / "blocked"
    blocked.mkdir(mode=0)
    assert states(collect(runs))["blocked"] == "damaged"
    blocked.chmod(0o700)


@pytest.mark.parametrize("other", [{"top1": 12.0}, {"status": "diverged"}])
def test_copies_count_once_and_contradicting_copies_not_at_all(runs, other):
    first = next(runs.glob("gelu-*-s0-*"))
    shutil.copytree(first, runs / "copy")
    found = collect(runs)
    assert len(found.runs) == 3 * len(STEPS)
    assert [item.state for item in found.skipped] == ["duplicate"]
    content = json.loads((runs / "copy" / "result.json").read_text())
    (runs / "copy" / "result.json").write_text(json.dumps(content | other))
    found = collect(runs)
    assert ladder_of(groups_of(found)[0][0]).row("gelu")["n"] == 2
    assert len(found.skipped) == 2


def test_missing_folder_is_one_line(tmp_path):
    with pytest.raises(StorageError, match="is not a folder"):
        collect(tmp_path / "nothing")


def test_cache_gives_the_same_table_and_follows_changes(runs, tmp_path):
    cache = tmp_path / "cache"
    cold = collect(runs, cache)
    warm = collect(runs, cache)
    assert (cold.from_cache, warm.from_cache) == (0, 3 * len(STEPS))
    assert warm.runs.equals(cold.runs)
    assert warm.settings == cold.settings
    path = next(runs.glob("gelu-*-s0-*")) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"top1": 33.0}))
    gone = next(runs.glob("width-*-s1-*"))
    shutil.rmtree(gone)
    changed = collect(runs, cache)
    assert changed.from_cache == 3 * len(STEPS) - 2
    assert 33.0 in changed.runs["top1"].tolist()
    assert len(changed.runs) == 3 * len(STEPS) - 1
    assert gone.name not in cache.read_text()


def test_what_has_only_just_changed_is_not_kept(runs, tmp_path):
    """Within a tick of the file system's clock a second change would look like none."""
    path = next(runs.glob("gelu-*-s0-*")) / "result.json"
    os.utime(path)
    collect(runs, tmp_path / "cache")
    assert collect(runs, tmp_path / "cache").from_cache == 3 * len(STEPS) - 1


@pytest.mark.parametrize("name", ["result.json", "config.yaml", "metrics.jsonl", "config.json"])
def test_a_change_beside_the_record_is_a_change(runs, tmp_path, name):
    folder = next(runs.glob("gelu-*-s0-*"))
    (folder / name).touch()
    os.utime(folder / name, (1e9, 1e9))
    collect(runs, tmp_path / "cache")
    assert collect(runs, tmp_path / "cache").from_cache == 3 * len(STEPS)
    os.utime(folder / name, (2e9, 1.1e9))
    assert collect(runs, tmp_path / "cache").from_cache == 3 * len(STEPS) - 1


@pytest.mark.parametrize("content", [b"", b"no cache", b"rows@1 2 3\n" * 9, b"\xff" * 5000])
def test_a_damaged_cache_is_replaced(runs, tmp_path, content):
    cache = tmp_path / "cache"
    cache.write_bytes(content)
    assert len(collect(runs, cache).runs) == 3 * len(STEPS)
    assert collect(runs, cache).from_cache == 3 * len(STEPS)


def test_no_flipped_bit_of_the_cache_is_believed(runs, tmp_path):
    cache, random = tmp_path / "cache", np.random.default_rng(0)
    expected = collect(runs, cache)
    whole = cache.read_bytes()
    for place in random.integers(0, len(whole), 40):
        data = bytearray(whole)
        data[place] ^= 1 << random.integers(8)
        cache.write_bytes(data)
        found = collect(runs, cache)
        assert found.runs.equals(expected.runs)
        assert found.settings == expected.settings


def test_a_cache_that_cannot_be_written_costs_nothing_else(runs, tmp_path):
    (tmp_path / "file").write_text("")
    assert len(collect(runs, tmp_path / "file" / "cache").runs) == 3 * len(STEPS)
    (tmp_path / "folder").mkdir()
    assert len(collect(runs, tmp_path / "folder").runs) == 3 * len(STEPS)


def test_nothing_is_written_below_runs(runs):
    before = sorted(path for path in runs.rglob("*"))
    collect(runs)
    assert sorted(path for path in runs.rglob("*")) == before


def many(folder, count):
    """`count` small run folders, fast: one record with another seed and id each."""
    content = factory.record("kernel_7", 0)
    text = json.dumps(content)
    for seed in range(count):
        name, own = f"kernel_7-micro-s{seed}-{seed:012x}", f"{seed:012x}".ljust(64, "0")
        (folder / name).mkdir(parents=True)
        changed = text.replace(content["run_id"], own).replace('"seed": 0', f'"seed": {seed}')
        (folder / name / "result.json").write_text(changed)


def timed(*arguments):
    start = time.process_time()
    found = collect(*arguments)
    return found, time.process_time() - start


def test_ten_thousand_records_cold_in_fifteen_seconds(tmp_path):
    many(tmp_path / "runs", 10_000)
    found, seconds = timed(tmp_path / "runs", tmp_path / "cache")
    assert len(found.runs) == 10_000
    assert seconds < 15


@pytest.mark.slow
def test_a_hundred_thousand_records_from_the_cache_in_five_seconds(tmp_path):
    many(tmp_path / "runs", 100_000)
    aged(tmp_path / "runs")
    collect(tmp_path / "runs", tmp_path / "cache")
    found, seconds = timed(tmp_path / "runs", tmp_path / "cache")
    assert found.from_cache == len(found.runs) == 100_000
    assert seconds < 5


# --- groups: what may be averaged ---


def steps_of(group):
    return dict(group.runs.groupby("step")["top1"].count())


def test_budgets_data_and_regimes_are_never_mixed(tmp_path):
    runs = tmp_path
    factory.write_all(runs, factory.ladder(value))
    for i, other in enumerate(
        ({"budget": "demo"}, {"data": "digits"}, {"regime": "tiny"}, {"image_size": 64}, {"precision": "bf16"})
    ):
        factory.write_all(
            runs,
            factory.ladder(lambda name: 10.0, seeds=[0], steps=["resnet50", "gelu", "width"][: 3 - i % 2], **other),
        )
    factory.write_all(runs, factory.ladder(lambda name: 20.0, seeds=[0], steps=["gelu"], flags={"stem_stride": 2}))
    groups, aside = groups_of(collect(runs))
    assert not aside
    assert len(groups) == 7
    assert groups[0].steps == len(STEPS)
    assert len({group.name for group in groups}) == 7
    assert groups[0].runs["top1"].min() > 70
    for group in groups:
        assert group.runs["config_id"].nunique() == group.runs["step"].nunique()


def test_a_recipe_in_two_settings_gives_two_ladders_that_share_the_other_recipe(tmp_path):
    factory.write_all(tmp_path, factory.ladder(value))
    slow = factory.RECIPES["enhanced"] | {"lr": 1e-4}
    for i, name in enumerate(("gelu", "width")):
        record = factory.record(name, 0, 50.0)
        factory.write(tmp_path, record | {"recipe": slow, "config_id": f"{i:064x}", "run_id": record["run_id"][::-1]})
    groups, aside = groups_of(collect(tmp_path))
    assert not aside
    assert [group.steps for group in groups] == [len(STEPS), 3]
    assert groups[0].runs["top1"].min() > 70
    assert set(groups[1].runs["step"]) == {"resnet50", "gelu", "width"}
    assert groups[1].name.startswith(groups[0].name + "-")


def test_two_configurations_of_one_step_are_not_averaged(tmp_path):
    factory.write_all(tmp_path, factory.ladder(value))
    odd = factory.record("gelu", 9, 10.0)
    factory.write(tmp_path, odd | {"config_id": "2" * 64, "run_id": "3" * 64})
    groups, aside = groups_of(collect(tmp_path))
    assert not aside
    assert groups[0].other["config_id"].tolist() == ["2" * 64]
    assert groups[0].runs["top1"].min() > 70
    chosen = select(collect(tmp_path), ["config_id=222222222222"])
    assert chosen["top1"].tolist() == [10.0]


def test_records_that_are_older_than_a_key_are_compared_with_younger_ones():
    """A younger record says that the key had the value which the older one could not have named."""
    older, younger = factory.record("gelu", 0), factory.record("gelu", 1)
    younger["recipe"] = younger["recipe"] | before_of(Recipe)
    younger["design"] = younger["design"] | before_of(Design)
    assert len(younger["recipe"]) > len(older["recipe"])
    rows = [flatten("here", json.loads(json.dumps(record)))[0] for record in (older, younger)]
    for key in ("variant", "settings", "profile"):
        assert rows[0][key] == rows[1][key]
    other = factory.record("gelu", 1) | {"recipe": older["recipe"] | {"repeats": 4}}
    assert flatten("here", other)[0]["variant"] != rows[0]["variant"]


def test_typed_flags_and_single_techniques_are_no_steps(tmp_path):
    factory.write_all(tmp_path, factory.ladder(value))
    flagged = factory.record(None, 0, 11.0, changes=factory.BY_NAME["gelu"].changes, flags={"kernel_size": 13})
    bare = factory.RECIPES["enhanced"] | {"without": ["mixup"]}
    without = factory.record(None, 0, 12.0, changes=factory.BY_NAME["gelu"].changes) | {
        "recipe": bare,
        "run_id": "4" * 64,
    }
    factory.write_all(tmp_path, [flagged, without])
    groups, aside = groups_of(collect(tmp_path))
    assert not aside
    assert len(groups) == 1
    assert sorted(groups[0].other["top1"]) == [11.0, 12.0]
    assert groups[0].runs["top1"].min() > 70


def test_matched_widths_are_a_ladder_of_their_own(tmp_path):
    factory.write_all(tmp_path, factory.ladder(value))
    for name, width in (("kernel_7", 20.0), ("gelu", 22.5)):
        changes = factory.BY_NAME[name].changes
        factory.write(tmp_path, factory.record(None, 0, 10.0, changes=changes, flags={"width": width}))
    groups, aside = groups_of(collect(tmp_path))
    assert not aside
    assert [group.steps for group in groups] == [len(STEPS), 2]
    assert groups[0].runs["top1"].min() > 70
    assert set(groups[1].runs["step"]) == {"kernel_7", "gelu"}
    assert "widths matched" in groups[1].title


def test_in_a_matched_ladder_the_step_of_the_width_is_passed_over(tmp_path):
    for step in (step for step in STEPS[1:] if step.name != "width"):
        changes = tuple(name for name in step.changes if name != "width")
        for seed in range(3):
            top1 = value(step.name) + 0.01 * seed
            record = factory.record(None, seed, top1, changes=changes, recipe="enhanced", flags={"width": 21.5})
            factory.write(tmp_path, record)
    (group,), _ = groups_of(collect(tmp_path))
    ladder = ladder_of(group)
    assert ladder.row("width")["status"] == "no effect"
    row = ladder.row("inverted_bottleneck")
    assert row["parent"] == "depthwise"
    assert row["gain"] == pytest.approx(value("inverted_bottleneck") - value("depthwise"))
    assert "increase width" in ladder.notes[0]


def test_second_regime_is_the_same_data_and_budget(tmp_path):
    factory.write_all(tmp_path, factory.ladder(value))
    factory.write_all(tmp_path, factory.ladder(value, regime="base", seeds=[0]))
    factory.write_all(tmp_path, factory.ladder(value, regime="tiny", data="digits", seeds=[0]))
    groups, _ = groups_of(collect(tmp_path))
    assert second_regime(groups[0], groups).regime == "base"
    assert second_regime(groups[-1], groups) is None or groups[-1].regime == "base"


@pytest.mark.parametrize(
    "condition, count",
    [("seed=1", 17), ("step=gelu", 3), ("recipe=original", 3), ("recipe.lr=0.1", 3), ("recipe.lr=1e-1", 3),
     ("batch.size=256", 51), ("data.eval_images=null", 51), ("git_dirty=0", 51), ("step=null", 0)],
)  # fmt: skip
def test_select(runs, condition, count):
    assert len(select(collect(runs), [condition])) == count


@pytest.mark.parametrize("condition", ["seed", "=1", "colour=red", "recipe=", "nonsense.lr=1"])
def test_bad_select_is_one_line(runs, condition):
    if condition == "recipe=":
        assert len(select(collect(runs), [condition])) == 0
        return
    with pytest.raises(ConfigError) as error:
        select(collect(runs), [condition])
    assert "\n" not in str(error.value)
