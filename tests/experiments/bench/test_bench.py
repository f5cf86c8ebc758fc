import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import DeviceType

from experiments.__main__ import main
from experiments.bench import ceilings, numerics, options, processes, report, targets
from experiments.bench.cli import KINDS
from experiments.bench.photos import SIZES, write_photos
from experiments.bench.profiler import _groups, _waits
from experiments.bench.timing import ratio, turns
from roadmap import layers

CPU = torch.device("cpu")


@pytest.fixture
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a benchmark run with one round, which shows that it works and measures nothing."""
    monkeypatch.setattr(options, "MIN_ROUNDS", 1)


def bench(tmp_path: Path, *arguments: str) -> dict:
    """Run a benchmark on the CPU; returns the only one that is recorded, with its name."""
    threads = torch.get_num_threads()
    try:
        assert main(["bench", *arguments, "--device", "cpu", "--threads", "1", "--out", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    (file,) = tmp_path.glob("*.json")
    ((name, benchmark),) = json.loads(file.read_text())["benchmarks"].items()
    return {"name": name, **benchmark}


@pytest.mark.parametrize("kind", ["step", "loop", "small", "large", "start", "kernels"])
def test_too_few_rounds_are_refused(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", kind, "--device", "cpu", "--rounds", "8"]) == 2
    assert "--rounds=8 must be at least 9" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["step", "--rows", "kernel_8"], "--rows: 'kernel_8' is not one of: resnet50"),
        (["step", "--peers", "swin"], "--peers: 'swin' is not one of: torchvision resnet50"),
        (["step", "--rows", ","], "--rows is empty"),
        (["large", "--images", "5"], "--images=5 must be at least 64"),
        (["small", "--peer-images", "5"], "--peer-images=5 must be at least 128"),
        (["many", "--seeds", "0"], "--seeds=0 must be at least 1"),
        (["looking", "--runs", "0"], "--runs=0 must be at least 1"),
        (["step", "--apart", "--ceilings"], "--apart cannot be combined"),
        (["profile", "--steps", "0"], "--steps=0 must be at least 1"),
    ],
)
def test_refusals_name_the_option(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments, "--device", "cpu"]) == 2
    assert told in capsys.readouterr().err


def test_looking_at_many_runs(tmp_path: Path) -> None:
    """Every command finds all runs, each look in a process of its own."""
    found = bench(tmp_path, "looking", "--runs", "40")
    looks = [(row["command"], row["look"], row["runs"]) for row in found["rows"]]
    twice = [(command, look, 40) for command in ("status", "analysis") for look in ("cold", "warm")]
    assert looks == [*twice, ("verify", "cold", 40)]
    assert all(row["seconds"] < 5 for row in found["rows"])


def test_every_kind_says_what_it_measures() -> None:
    assert all(kind.HELP and kind.HELP[0] for kind in KINDS.values())


def test_ratio_is_above_one_where_we_are_faster() -> None:
    assert ratio([1.0, 2.0, 1.0], [2.0, 2.0, 3.0]) == {"ratio": 2.0, "ratio_low": 1.0, "ratio_high": 3.0}


def test_everyone_has_one_turn_per_round() -> None:
    order = list(turns(["a", "b", "c"], 20))
    assert all(sorted(order[i : i + 3]) == ["a", "b", "c"] for i in range(0, 60, 3))
    assert len({tuple(order[i : i + 3]) for i in range(0, 60, 3)}) > 1


@pytest.mark.usefixtures("few_rounds")
def test_step_sets_rows_beside_named_peers(tmp_path: Path) -> None:
    how = ["--size", "32", "--batch", "2", "--rounds", "1", "--ceilings", "--deterministic"]
    peers = "torchvision resnet50,timm convnext_tiny,timm swin_tiny"
    found = bench(tmp_path, "step", "--rows", "resnet50,separate_downsampling", "--peers", peers, *how)
    pairs = {(row["network"], row["peer"]) for row in found["rows"] if "ratio" in row}
    assert found["name"] == "step 32px fp32 eager"
    assert pairs == {
        ("resnet50", "torchvision resnet50"),
        ("separate_downsampling", "timm convnext_tiny"),
        ("separate_downsampling", "timm swin_tiny"),
        ("resnet50, deterministic", "resnet50"),
        ("separate_downsampling, deterministic", "separate_downsampling"),
    }
    limits = [row for row in found["rows"] if row["network"] in ceilings.NAMES]
    assert [row["limit"].split()[1] for row in limits] == ["GB/s", "TFLOP/s"]
    assert all(0 < row["share_of_flops"] < 1.5 for row in found["rows"] if "share_of_flops" in row)


@pytest.mark.usefixtures("few_rounds")
def test_step_of_processes_of_their_own(tmp_path: Path) -> None:
    how = ["--size", "32", "--batch", "2", "--rounds", "1", "--apart", "--rows", "separate_downsampling"]
    found = bench(tmp_path, "step", *how, "--peers", "timm convnext_tiny")
    assert found["name"] == "step 32px fp32 eager, apart"
    assert [row["network"] for row in found["rows"]] == ["timm convnext_tiny", "separate_downsampling"]
    assert found["rows"][1]["ratio"] > 0


def test_step_counts_what_a_step_asks_of_a_device() -> None:
    assert ceilings.flops_of("separate_downsampling", 224) == pytest.approx(26.7e9, rel=0.01)
    assert ceilings.flops_of("resnet50", 224) == pytest.approx(24.5e9, rel=0.01)
    # 36 elements per channel and place of a block (12 per pass), 2 bytes each: 154 MB, and stem and downsampling
    assert ceilings.bytes_of("separate_downsampling", 224, 10**9, 2) == pytest.approx(160e6, rel=0.05)


@pytest.mark.usefixtures("few_rounds")
def test_loop_has_its_three_peers(tmp_path: Path) -> None:
    how = ["--rows", "separate_downsampling", "--size", "32", "--batch", "10", "--steps", "1", "--rounds", "1"]
    rows = bench(tmp_path, "loop", *how, "--workers", "1")["rows"]
    assert [row["peer"].split(":")[0] for row in rows] == ["a bare loop", "Lightning", "timm's parts, 1 workers"]
    assert all(row["ratio"] > 0 for row in rows if row["peer"] != "Lightning: not installed")


@pytest.mark.usefixtures("few_rounds")
def test_small_images_in_grey_and_colour(tmp_path: Path) -> None:
    how = ["--batch", "32", "--images", "64", "--peer-images", "64", "--rounds", "1", "--workers", "1"]
    rows = bench(tmp_path, "small", *how)["rows"]
    assert [row["pipeline"] for row in rows] == ["grey in memory", "RGB in memory"]
    assert all(row["ratio"] > 0 and row["share_of_convnext_step"] > 0 for row in rows)


@pytest.mark.usefixtures("few_rounds")
def test_large_images_in_fresh_processes(tmp_path: Path) -> None:
    how = ["--size", "64", "--batch", "16", "--images", "32", "--rounds", "1", "--workers", "1"]
    rows = bench(tmp_path, "large", *how)["rows"]
    speed, first, memory = rows
    assert speed["ours"] > 0 and first["theirs"] > 0
    assert 0.1 < memory["ours"] < 20 and 0.1 < memory["theirs"] < 20


@pytest.mark.usefixtures("few_rounds")
def test_start_says_where_the_time_goes(tmp_path: Path) -> None:
    total, *parts = bench(tmp_path, "start", "--regime", "micro", "--rounds", "1", "--workers", "1")["rows"]
    ours = [row["seconds"] for row in parts if ", ours: " in row["start"]]
    theirs = [row["seconds"] for row in parts if ", timm's parts: " in row["start"]]
    assert len(ours) == 7 and sum(ours) == pytest.approx(total["seconds"])
    assert len(theirs) == 5 and sum(theirs) == pytest.approx(total["peer_seconds"])


@pytest.mark.slow
def test_many_trains_the_same_runs_on_both_sides(tmp_path: Path) -> None:
    how = ["--rows", "resnet50,gelu", "--seeds", "1", "--starts", "1", "--workers", "1"]
    (row,) = bench(tmp_path, "many", *how)["rows"]
    assert row["peer"] == "2 starts of timm's parts, extrapolated from 1"
    assert row["mean_top1"] > 90 and row["peer_mean_top1"] > 90


def test_profile_names_the_groups_and_counts_waits(tmp_path: Path) -> None:
    rows = bench(tmp_path, "profile", "--size", "32", "--batch", "4", "--steps", "1")["rows"]
    *parts, waits = rows
    assert {"depthwise convolution", "1x1 convolution", "norm", "activation", "optimizer"} <= {r["part"] for r in parts}
    assert sum(row["share"] for row in parts) == pytest.approx(1)
    assert waits["per_step"] == 0 and "none" in waits["part"]


def event(name: str, start: float, end: float, on: DeviceType = DeviceType.CPU, device_time: float = 0) -> Any:
    """An event of torch's profiler, as far as ours looks at it."""
    return SimpleNamespace(
        name=name,
        device_type=on,
        cpu_parent=None,
        self_device_time_total=device_time,
        time_range=SimpleNamespace(start=start, end=end),
    )


def test_profile_counts_the_time_of_a_kernel_once_and_with_the_operation_that_launched_it() -> None:
    events = [
        event("aten::gelu", 0, 1, device_time=3e6),
        event("a_kernel", 1, 4, on=DeviceType.CUDA, device_time=3e6),
        event("aten::native_layer_norm", 1, 2, device_time=1e6),
        event("another_kernel", 4, 5, on=DeviceType.CUDA, device_time=1e6),
    ]
    shares = {line["part"]: line["share"] for line in _groups("row", events, 2, torch.device("cuda"))}
    assert shares == {"activation": 0.75, "norm": 0.25}


def test_profile_counts_no_wait_after_the_last_step() -> None:
    wait = "cudaStreamSynchronize"
    events = [event(name, 2 * i, 2 * i + 1) for i, name in enumerate([wait, "Optimizer.step#AdamW.step", wait, wait])]
    (line,) = _waits("row", events, 1, torch.device("cuda"))
    assert line["per_step"] == 1


def test_profile_counts_a_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from experiments.training import loop

    forward = loop.forward

    def waiting(*arguments: object) -> torch.Tensor:
        loss = forward(*arguments)  # type: ignore[arg-type]
        loss.item()
        return loss

    monkeypatch.setattr(loop, "forward", waiting)
    how = ["--rows", "resnet50", "--size", "32", "--batch", "4", "--steps", "2"]
    waits = bench(tmp_path, "profile", *how)["rows"][-1]
    assert waits["per_step"] == 1 and "aten::_local_scalar_dense 2 in 2 steps" in waits["part"]


@pytest.mark.usefixtures("few_rounds")
def test_kernels_of_a_row(tmp_path: Path) -> None:
    how = ["--rows", "kernel_5,separate_downsampling", "--batch", "2", "--rounds", "1"]
    rows = bench(tmp_path, "kernels", *how)["rows"]
    assert ("5x5, 96 channels, map 8x8, stride 2", "torch's convolution") in {
        (row["convolution"], row["peer"]) for row in rows
    }
    assert [row["peer"] for row in rows if row["convolution"] == "1x1, 96 to 384 channels, map 8x8"] == [
        "torch's convolution",
        "torch's linear layer",
    ]
    assert all(row["ratio"] > 0 for row in rows)


def test_numerics_of_both_forms(tmp_path: Path) -> None:
    rows = bench(tmp_path, "numerics", "--regime", "micro", "--batch", "16", "--steps", "3")["rows"]
    assert all(row["error_fast"] < 1e-4 and row["loss_gap"] < 1e-3 for row in rows)


def test_numerics_see_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    how = ("separate_downsampling", "micro", 32, 2, 2, CPU)
    right = numerics.compare(*how)
    monkeypatch.setattr(layers.DepthwiseConv, "forward", lambda self, x: nn.Conv2d.forward(self, x) + 0.1 * x)
    wrong = numerics.compare(*how)
    assert wrong["error_fast"] > 100 * right["error_fast"]
    assert wrong["error_plain"] == right["error_plain"]


def test_a_failing_program_shows_its_end() -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        processes.run(["-c", "raise SystemExit('no such thing')"], {})


def test_memory_of_descendants_is_counted() -> None:
    held = "b = bytearray(200_000_000); import time; time.sleep(1)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {held!r}])"
    assert 200e6 < processes.run(["-c", code], {})["peak_bytes"] < 400e6


def test_photographs_have_real_sizes(tmp_path: Path) -> None:
    from PIL import Image

    write_photos(tmp_path, 12, 10)
    assert len(list(tmp_path.glob("train/*/*.jpg"))) == 12 and len(list(tmp_path.glob("val/*/*.jpg"))) == 10
    files = tmp_path.glob("train/*/*.jpg")
    assert {Image.open(io.BytesIO(file.read_bytes())).size for file in files} == set(SIZES)


def recorded(folder: Path, name: str, *rows: dict) -> None:
    conditions, versions = {"rounds": 9, "threads": 1}, {"torch": "2", "timm": "1"}
    benchmark = {"conditions": conditions, "versions": versions, "rows": list(rows)}
    (folder / "cpu.json").write_text(json.dumps({"device": "a CPU", "benchmarks": {name: benchmark}}))


def test_aims_say_what_is_reached(tmp_path: Path) -> None:
    spread = {"ratio_low": 4.0, "ratio_high": 9.0}
    grey = {"pipeline": "grey in memory", "ratio": 5.5, **spread}
    recorded(tmp_path, "small images 32px", grey, {"pipeline": "RGB in memory", "ratio": 4.9, **spread})
    lines = {line.split(" | ")[0]: line for line in report.aims(tmp_path).splitlines()}
    assert lines["| 32 px grey in memory / timm's loader"].endswith("5.50 (4.00-9.00) | at least 5 | yes | a CPU |")
    assert lines["| 32 px RGB in memory / timm's loader"].endswith("4.90 (4.00-9.00) | at least 5 | no | a CPU |")
    assert "| not measured | at least 1.5 |  |  |" in report.aims(tmp_path)


def test_aims_that_must_be_low() -> None:
    (target,) = (target for target in targets.TARGETS if target.at_most)
    row = {"part": "host synchronisations (none)", "per_step": 0.0}
    assert target.covers(row) and target.reached(target.measured(row)[1]) and not target.reached(0.2)


def test_tables_keep_the_range_beside_the_ratio(tmp_path: Path) -> None:
    row = {"loop": "gelu", "peer": "a bare loop", "ratio": 1.0, "ratio_low": 0.9, "ratio_high": 1.1}
    recorded(tmp_path, "loop 32px fp32", row)
    text = report.tables(tmp_path)
    assert "**loop 32px fp32** on a CPU (rounds 9, threads 1, torch 2, timm 1)" in text
    assert "| gelu | a bare loop | 1.00 (0.90-1.10) |" in text
