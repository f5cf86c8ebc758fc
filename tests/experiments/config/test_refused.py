"""Bad input: each is refused before torch is imported, with its exit code and one line that names the key."""

import logging
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import run as program
from experiments.errors import DataError, DivergedError, InterruptedRun
from tests.conftest import ROOT

Outcome = tuple[int, str, str]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for experiments.training.run; collects the settings of each run."""
    seen: list[Any] = []
    fake = types.ModuleType("experiments.training.run")
    fake.run = seen.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "experiments.training.run", fake)
    return seen


@pytest.fixture
def call(
    train: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Outcome]:
    """Run the program in this process, in an empty folder: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.chdir(tmp_path)
        here = [] if any("device=" in item for item in arguments) else ["device=cpu"]
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments, *here])
        code = 0
        try:
            program.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


# what is typed -> what the line must contain: the key, and where there are few options, those
REFUSED = {
    "recipe.mixupp=1": ["recipe.mixupp"],
    "nonsense=1": ["nonsense"],
    "epochs=3": ["epochs", "did you mean recipe.epochs?"],
    "+epochs=3": ["epochs", "did you mean recipe.epochs?"],
    "+sed=7": ["sed", "did you mean seed?"],
    "+steps=kernel_7": ["steps", "did you mean step?"],
    "+recipe.bce=true": ["recipe.bce is not a key"],
    "data.root=~/images": ["data.root=~/images", "two pairs of quotes"],
    "data.root=/data/a=b": ["data.root=/data/a=b", "two pairs of quotes"],
    "data.root=/data/größe": ["data.root=/data/größe", "two pairs of quotes"],
    "+step=kernel_6": ["step", "kernel_5", "kernel_7"],
    "step=kernel_7": ["+step=kernel_7"],
    "++step=kernel_7": ["step"],
    "recipe=best": ["recipe", "enhanced, finetune, original"],
    "regime=huge": ["regime", "base, micro, tiny"],
    "data=mnist": ["data", "fashion_mnist"],
    "budget=free": ["budget", "demo, paper, proxy"],
    "logger=mail": ["logger", "wandb"],
    "launcher=moon": ["launcher", "local"],
    "replan=true": ["replan", "rerun=true"],
    "design.kernel_size=4": ["design.kernel_size", "odd"],
    "design.kernel_size=big": ["design.kernel_size"],
    "design.kernel_size=-3": ["design.kernel_size", "odd"],
    "design.norm=gn": ["design.norm", "bn, ln"],
    "design.act=swish": ["design.act", "relu, gelu"],
    "design.stem=conv": ["design.stem", "resnet, deep, deep_conv, patchify"],
    "design.groups=7": ["design.groups", "depthwise"],
    "design.groups=1 add=[depthwise]": ["design.groups=1", "add=[depthwise]"],
    "design.groups=many": ["design.groups", "depthwise"],
    "design.depths=[]": ["design.depths", "whole numbers of at least 1, one a stage"],
    "design.depths=[1,2,3,0]": ["design.depths", "at least 1"],
    "design.depths=5": ["design.depths"],
    "design.width=-64": ["design.width", "at least 1"],
    "design.width=nan": ["design.width"],
    "design.inverted=perhaps": ["design.inverted"],
    "design.drop_path=1": ["design.drop_path", "below 1"],
    "design.layer_scale=-1": ["design.layer_scale"],
    "design.init=zeros": ["design.init", "kaiming, zero_gamma, trunc_normal"],
    "design.stem_stride=3": ["design.stem_stride", "4, 2, 1"],
    "drop=[kernel_7]": ["drop=kernel_7", "not in the set"],
    "add=[kernel_6]": ["add=", "kernel_5"],
    "add=[gelu,gelu]": ["add=gelu"],
    "add=[kernel_5,kernel_7]": ["add=kernel_7", "kernel_5"],
    "add=[enhanced_recipe]": ["add=enhanced_recipe", "recipe="],
    "drop=[resnet50]": ["drop=resnet50", "recipe="],
    "add=gelu": ["add"],
    "changes.kernel_7.kernel_size=9": ["changes", "kernel_7"],
    "+changes.kernel_7.kernel_size=7": ["changes.kernel_7", "add=", "design."],
    "+changes.mine.act=gelu": ["changes.mine"],
    "regime.width=32": ["regime.width", "design."],
    "regime.name=base": ["regime.name", "regime="],
    "recipe.name=original": ["recipe.name", "recipe="],
    "budget.name=paper": ["budget.name", "budget="],
    "~recipe.mixup": ["recipe.mixup"],
    "~data": ["~data"],
    "~recipe": ["recipe"],
    "recipe.epochs=0": ["recipe.epochs", "at least 1"],
    "recipe.epochs=1.5": ["recipe.epochs"],
    "recipe.epochs=inf": ["recipe.epochs"],
    "recipe.epochs=null": ["recipe.epochs"],
    "recipe.warmup_epochs=100": ["recipe.warmup_epochs", "recipe.epochs="],
    "recipe.optimizer=cat": ["recipe.optimizer", "sgd, adamw, lamb"],
    "recipe.schedule=linear": ["recipe.schedule", "cosine, steps, constant"],
    "recipe.lr=0": ["recipe.lr", "above 0"],
    "recipe.lr=-1": ["recipe.lr", "above 0"],
    "recipe.lr=nan": ["recipe.lr"],
    "recipe.lr=fast": ["recipe.lr"],
    "recipe.betas=[0.9]": ["recipe.betas", "2 numbers"],
    "recipe.betas=[0.9,1.0]": ["recipe.betas", "below 1"],
    "recipe.betas=[0.9,x]": ["recipe.betas"],
    "recipe.mixup=-0.1": ["recipe.mixup", "at least 0"],
    "recipe.mixup=nan": ["recipe.mixup"],
    "recipe.mixup=inf": ["recipe.mixup"],
    "recipe.label_smoothing=1": ["recipe.label_smoothing", "below 1"],
    "recipe.erasing=1.1": ["recipe.erasing", "at most 1"],
    "recipe.ema=1": ["recipe.ema", "below 1"],
    "recipe.randaugment=strong": ["recipe.randaugment", "rand-m"],
    "recipe.auto_augment=3a": ["recipe.auto_augment", "original, originalr, v0 or v0r"],
    "recipe.auto_augment=augmix-m5": ["recipe.auto_augment", "timm's notation"],
    "recipe.auto_augment=original-m9": ["recipe.auto_augment", "-mstd<spread>"],
    "recipe.optimizer=kron": ["recipe.optimizer", "nadamw"],
    "recipe.optimizer=lion recipe.momentum=0.8": ["recipe.momentum", "recipe.optimizer=lion"],
    "recipe.optimizer=lion recipe.opt.eps=1e-8": ["recipe.opt.eps", "recipe.optimizer=lion", "takes: caution"],
    "recipe.optimizer=lion recipe.opt={eps:1e-8}": ["recipe.opt.eps", "recipe.optimizer=lion", "takes: caution"],
    "recipe.optimizer=adan": ["recipe.betas=[0.9, 0.999]", "3 numbers", "recipe.optimizer=adan"],
    "recipe.opt=3": ["recipe.opt"],
    "recipe.bce_sum=true": ["recipe.bce_sum", "recipe.loss=cross_entropy"],
    "recipe.loss=bce recipe.bce_target_thresh=2": ["recipe.bce_target_thresh", "at most 1"],
    "recipe.crop=big": ["recipe.crop", "resized, shift, none"],
    "recipe.loss=hinge": ["recipe.loss", "cross_entropy, bce"],
    "recipe.trivial_augment=wide": ["recipe.trivial_augment"],
    "recipe.repeats=0": ["recipe.repeats", "at least 1"],
    "recipe.repeats=1.5": ["recipe.repeats"],
    "recipe.train_scale=0": ["recipe.train_scale", "above 0"],
    "recipe.train_scale=2.5": ["recipe.train_scale", "at most 2"],
    "recipe.ema_every=0 recipe.ema=0.9": ["recipe.ema_every", "at least 1"],
    "recipe.ema_every=32": ["recipe.ema_every", "recipe.ema=null"],
    "recipe.dropout=1": ["recipe.dropout", "below 1"],
    "recipe.without=[trivial_augment]": ["recipe.without=trivial_augment", "already off"],
    "recipe.crop_scale=[1.0,0.1]": ["recipe.crop_scale"],
    "recipe.min_lr=1": ["recipe.min_lr", "peak rate"],
    "recipe.momentum=0.5": ["recipe.momentum", "recipe.optimizer=adamw"],
    "recipe.decay_every=3": ["recipe.decay_every", "recipe.schedule=cosine"],
    "recipe.without=[mixup]": ["recipe.without=mixup", "already off", "label_smoothing"],
    "recipe.without=[magic]": ["recipe.without=magic", "randaugment"],
    "recipe.without=[warmup,warmup]": ["recipe.without", "twice"],
    "recipe.without=warmup": ["recipe.without"],
    "budget=paper batch.size=300": ["batch.size=300", "256 or 384"],
    "batch.size=0": ["batch.size"],
    "batch.size=-64": ["batch.size"],
    "budget=paper batch.size=128": ["recipe.lr", "batch.size=128"],
    "budget=paper batch.micro=48": ["batch.micro=48"],
    "data.mean=[0.5]": ["data.mean", "data.channels=3"],
    "data.std=[0,0,0]": ["data.std", "above 0"],
    "data.channels=0": ["data.channels"],
    "data.classes=1": ["data.classes"],
    "data.stem_stride=3": ["data.stem_stride", "4, 2, 1"],
    "data.holdout=0.9": ["data.holdout"],
    "data.checksum=abc": ["data.checksum"],
    "image_size=4": ["image_size", "at least 8"],
    "image_size=wide": ["image_size"],
    "match_gmacs=-1": ["match_gmacs", "above 0"],
    "match_gmacs=1e9": ["match_gmacs", "range"],
    "seed=-1": ["seed", "at least 0"],
    "seed=one": ["seed"],
    "precision=fp8": ["precision", "auto, fp32, bf16, fp16"],
    "device=gpu": ["device", "auto, cpu, cuda"],
    "threads=0": ["threads", "at least 1"],
    "workers=-1": ["workers", "at least 0"],
    "compile=yes": ["compile", "none, blocks, model"],
    "checkpoint.every_steps=0": ["checkpoint.every_steps"],
    "logger.mode=loud": ["logger.mode", "online, offline, disabled"],
    "logger.project=a/b": ["logger.project"],
}


@pytest.mark.parametrize("typed", REFUSED)
def test_bad_input_is_one_line_that_names_the_key(typed: str, call: Callable[..., Outcome], train: list[Any]) -> None:
    code, out, err = call(*typed.split())
    assert (code, out, train) == (2, "", [])
    assert err.count("\n") == 1, err
    for needed in REFUSED[typed]:
        assert needed in err


def test_a_step_does_not_hide_an_edited_change(call: Callable[..., Outcome]) -> None:
    code, _, err = call("+step=kernel_7", "changes.kernel_7.kernel_size=9")
    assert code == 2
    assert "changes.kernel_7" in err


def test_match_gmacs_and_a_typed_width_contradict(call: Callable[..., Outcome]) -> None:
    code, _, err = call("match_gmacs=4", "design.width=32")
    assert code == 2
    assert "match_gmacs" in err
    assert "design.width" in err


def test_a_recipe_without_values_for_its_budget(call: Callable[..., Outcome], tmp_path: Path, train: list[Any]) -> None:
    (tmp_path / "conf" / "recipe").mkdir(parents=True)
    (tmp_path / "conf" / "recipe" / "mine.yaml").write_text("name: mine\noptimizer: adamw\n")
    where = ("--config-dir", str(tmp_path / "conf"))
    code, _, err = call(*where, "recipe=mine")
    assert (code, train) == (2, [])
    assert "budget=demo has no values for recipe=mine" in err
    code, _, err = call(*where, "recipe=mine", "budget=paper")
    assert (code, train[0].recipe.name, train[0].step) == (0, "mine", None), err


def test_good_input_arrives(call: Callable[..., Outcome], train: list[Any], tmp_path: Path) -> None:
    code, _, err = call("+step=kernel_7", "recipe.lr=2e-3", "seed=3")
    assert (code, err) == (0, "")
    assert (train[0].label, train[0].lr, train[0].seed, train[0].precision) == ("kernel_7", 2e-3, 3, "fp32")
    assert list(tmp_path.iterdir()) == []  # Hydra wrote nothing


@pytest.mark.parametrize(
    "error, code", [(DataError("no images"), 3), (DivergedError("nan"), 4), (InterruptedRun("stop"), 75)]
)
def test_errors_of_a_run_have_their_exit_codes(
    error: Exception, code: int, call: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(settings: Any) -> None:
        raise error

    monkeypatch.setattr(sys.modules["experiments.training.run"], "run", fail)
    assert call("+step=kernel_7") == (code, "", f"error: {error}\n")


def test_a_bug_shows_its_traceback(call: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: Any) -> None:
        raise ZeroDivisionError("injected")

    monkeypatch.setattr(sys.modules["experiments.training.run"], "run", fail)
    code, _, err = call("+step=kernel_7")
    assert code == 1
    assert "Traceback" in err
    assert "ZeroDivisionError: injected" in err
    assert "in fail" in err


def test_hydra_leaves_warnings_audible(call: Callable[..., Outcome], train: list[Any]) -> None:
    """Damaged files and failing mirrors are reported through logging."""
    log = logging.getLogger("experiments.training.loggers")
    assert call("+step=kernel_7")[0] == 0
    assert log.isEnabledFor(logging.WARNING)


def test_a_bare_run_says_what_it_trains(
    call: Callable[..., Outcome], train: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.config.compose._precision", lambda asked, device: "fp32")
    monkeypatch.setattr(sys, "argv", ["run.py"])
    program.main()
    assert train[0].step == "enhanced_recipe"


@pytest.mark.parametrize(
    "arguments, needed", [(["--cfg", "job"], "kernel_size: 3"), (["--help"], "kernel_7"), (["bad=1"], "")]
)
def test_nothing_imports_torch_before_training(
    arguments: list[str], needed: str, repo_root: Path, tmp_path: Path
) -> None:
    """In a process of its own, from another folder: no torch, nothing written."""
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['run.py', *{arguments!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(repo_root / 'run.py')!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        "print('TORCH' if 'torch' in sys.modules else 'LIGHT')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.endswith("LIGHT\n"), done.stderr
    assert needed in done.stdout
    assert list(tmp_path.iterdir()) == []


def shown(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run.py"), *arguments, "--cfg", "job"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_shown_config_is_what_would_be_trained() -> None:
    config = yaml.safe_load(shown("+step=gelu", "roadmap=convnext", "add=[ema]", "drop=[kernel_7]").stdout)
    assert config["design"]["depths"] == [3, 3, 9, 3]
    assert (config["design"]["kernel_size"], config["design"]["act"]) == (3, "gelu")
    assert config["recipe"]["ema"] == 0.98
    assert config["label"] == "move_up_depthwise+gelu+ema"
    assert "ema" in config["changes"]
    assert "???" not in str(config)


@pytest.mark.parametrize(
    "arguments, labels",
    [
        (("-m", "+step=depthwise,gelu", "seed=0,1"), ["depthwise", "depthwise", "gelu", "gelu"]),
        (("+study=grn_on_resnet", "seed=3"), ["enhanced_recipe", "resnet50+grn"]),
        (("+study=ladder", "roadmap=convnext_v2", "seed=0"), None),
    ],
)
def test_a_multirun_shows_the_config_of_each_run(arguments: tuple[str, ...], labels: list[str] | None) -> None:
    done = shown(*arguments)
    assert done.returncode == 0, done.stderr
    found = [config["label"] for config in yaml.safe_load_all(done.stdout)]
    assert found == (labels or ["separate_downsampling", "convnext_v2.no_layer_scale", "convnext_v2.grn"])


SEVERAL = [
    ("-m", "+study=ladder,orders", "seed=0"),
    ("+study=ladder", "roadmap=convnext,torchvision", "seed=0"),
]


@pytest.mark.parametrize("arguments", SEVERAL, ids=" ".join)
def test_several_studies_at_once_are_one_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "one at a time; start one study after the other" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_changes_nothing_here_says_so(call: Callable[..., Outcome], train: list[Any]) -> None:
    code, _, said = call("+step=trivial_augment", "roadmap=torchvision", "device=cpu")
    assert code == 0
    assert train[0].label == "torchvision.lr_optimizations"
    assert "trivial_augment has nothing to do here" in said
    assert "nothing to do" not in call("+step=epochs_600", "roadmap=torchvision", "device=cpu")[2]


def test_an_unknown_option_of_the_shown_config_is_refused() -> None:
    done = shown("+step=gelu", "design.kernel_size=4")
    assert done.returncode == 2
    assert "design.kernel_size=4 must be an odd whole number" in done.stderr
