"""What a finished run seals, and that no reader takes anything else for it."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.__main__ import main
from experiments.bench.made_up import settings_of, write_run
from experiments.commands import status, verify
from experiments.config.identity import Identity, ids_follow
from experiments.errors import StorageError
from experiments.store.result import comparable, read_record, read_result, sealed
from experiments.store.run_dir import RunDir
from experiments.strict_json import dump
from roadmap.seals import RECORD, SEALED, SealError, differing, digest_of
from tests.conftest import ROOT
from tests.experiments.store.test_starts import seal, trained

WEIGHTS = {"last.safetensors": b"some weights", "ema.safetensors": b"their average"}
RESULTS = ROOT / "results" / "fashion_mnist"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A finished run with files that stand for weights."""
    return write_run(settings_of(tmp_path / "runs", "+step=gelu", "seed=3"), WEIGHTS)


def edit(run: RunDir, *gone: str, **values: Any) -> None:
    """Change the record as an editor would, and take some keys out."""
    record = json.loads(run.result.read_text()) | values
    run.result.write_bytes(dump({key: value for key, value in record.items() if key not in gone}, indent=1))


def unseal(run: RunDir, **values: Any) -> None:
    """Make it a record from before there were seals."""
    edit(run, "seals", "digest", **values)


def faults(folder: Path, weights: bool = False) -> dict[str, str]:
    return {fault.path.name: fault.why for fault in verify.faults_below(folder, weights, Counter())}


# ---- the record


def test_a_record_seals_what_is_there(run: RunDir) -> None:
    record = read_result(run.result)
    assert record["seals"].keys() == SEALED.keys()
    assert record["digest"] == digest_of(run.result.read_bytes())
    run.averaged.unlink()
    assert sealed({}, run.final_files)["seals"].keys() == SEALED.keys() - {"ema"}


def test_every_flipped_bit_of_a_record_is_seen(run: RunDir) -> None:
    """Also those that change no value: 1e-06 and 1E-06, a digit that no float can hold."""
    whole = run.result.read_bytes()
    assert b"e-06" in whole
    silent = []
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << (5 if whole[place] in b"eE" else place % 8)
        run.result.write_bytes(data)
        try:
            read_record(run.result)
        except ValueError as error:
            silent += [place] if "\n" in str(error) else []
        else:
            silent.append(place)
    assert silent == []


@pytest.mark.parametrize("key", ["seals", "digest"])
def test_a_record_without_one_of_both_is_no_older_one(run: RunDir, key: str) -> None:
    edit(run, key)
    with pytest.raises(SealError, match="is not what was sealed"):
        read_result(run.result)


def test_another_runs_record_is_known_by_the_folder(run: RunDir, tmp_path: Path) -> None:
    """All files of a whole run, with seals and digest that fit, under the name of another one."""
    other = write_run(settings_of(tmp_path / "runs", "+step=gelu", "seed=4"), WEIGHTS)
    shutil.copytree(other.path, run.path, dirs_exist_ok=True)
    assert run.state() == "damaged"
    with pytest.raises(SealError, match="is the record of another run"):
        read_result(run.result)
    assert read_result(other.path.rename(tmp_path / "the-best-one") / RECORD)["seed"] == 4


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.yaml", "config.json"])
def test_a_record_does_not_count_beside_files_that_it_did_not_seal(run: RunDir, name: str) -> None:
    with (run.path / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(SealError, match=f"{name}: is not what result.json sealed"):
        read_result(run.result)
    assert run.state() == "damaged"
    (run.path / name).unlink()  # not here is no fault
    assert run.state() == "finished"


def test_the_ids_of_older_records_are_computed_anew(run: RunDir) -> None:
    unseal(run)
    assert run.state() == "finished"
    unseal(run, seed=4)
    with pytest.raises(SealError, match="its run_id is not that of what it says"):
        read_result(run.result)
    unseal(run, seed=3, config_id="f" * 64)
    assert run.state() == "damaged"


def test_ids_are_left_alone_where_a_record_does_not_say_all(run: RunDir) -> None:
    record = read_result(run.result)
    assert ids_follow(record)
    other = record | {"run_id": "f" * 64}
    assert not ids_follow(other)
    short = {key: value for key, value in record["recipe"].items() if key != "mixup"}
    assert ids_follow(other | {"recipe": short})
    assert ids_follow(other | {"recipe": record["recipe"] | {"of_a_later_version": 1}})


def test_recorded_runs_are_whole_and_unsealed() -> None:
    counts: Counter[str] = Counter()
    assert list(verify.faults_below(RESULTS, True, counts)) == []
    assert counts == {"runs": 123, "unsealed": 123}


def test_times_and_machine_settings_do_not_tell_runs_apart(run: RunDir) -> None:
    before = comparable(read_result(run.result))
    run.config.write_text(run.config.read_text() + "# another host\n")
    again = sealed(json.loads(run.result.read_text()) | {"wall_seconds": 1.0}, run.final_files)
    assert comparable(again) == before


def test_a_link_to_the_weights_is_not_read_twice(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    seals = read_result(run.result)["seals"]
    run.linked.symlink_to(run.weights.name)
    assert list(differing(run.path, seals)) == []
    run.linked.unlink()
    run.linked.write_bytes(b"other weights")
    assert [name for name, _ in differing(run.path, seals)] == ["model.safetensors"]


def test_a_damaged_run_heals_by_its_own_command(run: RunDir) -> None:
    """The record is set aside and the config written anew, so that sealing again cannot bless an edit."""
    settings = settings_of(run.path.parent, "+step=gelu", "seed=3")
    run.config.write_text(run.config.read_text().replace("epochs: ", "epochs: 1"))
    assert run.state() == "damaged"
    run.start(settings, Identity.of(settings))
    assert run.state() == "half"
    assert yaml.safe_load(run.config.read_text())["recipe"]["epochs"] == settings.recipe.epochs


# ---- verify


def test_verify_names_every_bad_file(run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    write_run(settings_of(runs, "+step=width", "seed=0"))
    assert main(["verify", str(runs)]) == 0
    said = "2 runs: 2 sealed; weights: all here, not read (--weights reads them); 0 bad files\n"
    assert capsys.readouterr().out == said
    run.weights.write_bytes(b"other weights")
    run.metrics.write_bytes(b"")
    assert main(["verify", str(runs)]) == 5
    assert capsys.readouterr().out.splitlines()[:-1] == [
        f"{run.metrics}: is not what result.json sealed: its SHA-256 differs"
    ]
    assert main(["verify", str(runs), "--weights"]) == 5
    named = [line.partition(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert named == [str(run.weights), str(run.metrics), "2 runs"]


def test_verify_ends_what_a_kill_cut_short_behind_the_seal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left = trained(tmp_path / "runs")
    with monkeypatch.context() as killed:
        killed.setattr(RunDir, "finish", lambda self: None)
        seal(left)
    assert not (left.path / "metrics.jsonl").exists()
    assert main(["verify", str(tmp_path / "runs"), "--weights"]) == 0
    assert "1 sealed; weights: all here, read; 0 bad files" in capsys.readouterr().out
    assert (left.path / "metrics.jsonl").exists()


def test_verify_tells_what_is_not_here_and_what_is_unsealed(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    unseal(write_run(settings_of(runs, "+step=width", "seed=0")))
    run.weights.unlink()
    half = settings_of(runs, "+step=width", "seed=1")
    RunDir.locate(half).start(half, Identity.of(half))
    assert main(["verify", str(runs), "--weights"]) == 0
    said = "3 runs: 1 sealed, 1 unsealed, 1 without a result; weights: 1 not here, read; 0 bad files\n"
    assert capsys.readouterr().out == said
    assert main(["verify", str(tmp_path / "nowhere")]) == 5
    assert "no such folder" in capsys.readouterr().err


def test_verify_looks_at_what_older_records_leave_to_compare(run: RunDir) -> None:
    unseal(run)
    assert faults(run.path) == {}
    run.metrics.write_bytes(run.metrics.read_bytes().splitlines(keepends=True)[0])
    assert faults(run.path) == {"metrics.jsonl": "ends otherwise than its record"}
    run.metrics.unlink()
    run.config.write_text(run.config.read_text().replace("mixup: ", "mixup: 1"))
    assert faults(run.path) == {"config.yaml": "its run_id is not that of what it says was asked for"}
    for content, why in ((f"run_id: {'f' * 64}\nconfig_id: {'f' * 64}\n", "is of another run"), ("[", "is no config")):
        run.config.write_text(content)
        assert faults(run.path)["config.yaml"].startswith(why)


def test_verify_reads_studies_too(run: RunDir) -> None:
    folder = run.path.parent / "studies"
    folder.mkdir()
    (folder / "mine-12345678.json").write_text("{}")
    assert "not a frozen study" in faults(run.path.parent)["mine-12345678.json"]


def test_verify_shows_no_escape_sequences(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    strange = run.path.rename(run.path.with_name("\x1b[2J\udcff")) / RECORD
    strange.write_text("{}")
    assert main(["verify", str(strange.parent.parent)]) == 5
    assert "\x1b" not in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_a_fault(run: RunDir) -> None:
    run.metrics.unlink()
    run.metrics.mkdir()
    assert "cannot be read" in faults(run.path)["metrics.jsonl"]


# ---- status


def test_status_reads_what_has_changed_and_nothing_else(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, cache, read = run.path.parent, tmp_path / "cache", []
    monkeypatch.setattr(status, "read_result", lambda path: read.append(path) or read_result(path))
    settings = settings_of(runs, "+step=gelu", "seed=5")
    other = write_run(settings)
    for path in runs.rglob("*"):
        os.utime(path, (1e9, 1e9))
    first = status.rows(runs, None, cache)
    assert [row["state"] for row in first] == ["finished", "finished"]
    assert (status.rows(runs, None, cache), len(read)) == (first, 2)
    other.metrics.write_bytes(b"")
    assert [row["state"] for row in status.rows(runs, None, cache)] == ["finished", "damaged"]
    assert read[2:] == [other.result]
    note = status.rows(runs, None, cache)[1]["note"]
    assert note == "metrics.jsonl: is not what result.json sealed: its SHA-256 differs"


def test_status_shows_what_is_unsealed(run: RunDir) -> None:
    assert status.rows(run.path.parent)[0]["note"] == ""
    unseal(run)
    (row,) = status.rows(run.path.parent)
    assert (row["state"], row["note"]) == ("finished", status.UNSEALED)


def test_sealing_says_what_it_cannot_read(run: RunDir) -> None:
    run.averaged.unlink()
    run.averaged.mkdir()
    with pytest.raises(StorageError, match=r"cannot read .*ema\.safetensors to seal it: Is a directory"):
        sealed({}, run.final_files)
