"""The wheel outside a checkout: built from the sdist, installed in a fresh environment, used in an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.conftest import ROOT
from tests.test_skeleton import FILES

pytestmark = pytest.mark.xdist_group("wheel")  # built and installed once
PACKAGES = ("roadmap", "experiments", "analysis", "hydra_plugins")
QUICK = (
    *("regime=micro", "device=cpu", "threads=1", "recipe.epochs=1", "recipe.warmup_epochs=0", "batch.size=32"),
    *("batch.micro=32", "recipe.lr=1e-3", "data.train_images=64", "data.eval_images=32"),
)
STEP = """\
# @package _global_
defaults:
  - separate_downsampling
  - _self_

step: more_smoothing
changes: {more_smoothing: {recipe: {label_smoothing: 0.2}}}
"""
STUDY = """\
# @package _global_
study:
  name: smoothing
  sweep:
    seed: 0
    +step: separate_downsampling,more_smoothing
"""
Command = Callable[..., str]


def checked(*command: str, folder: Path, environment: dict[str, str] | None = None) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of a copy of the tree, so that no build folder of the checkout gets into it, unpacked."""
    copy = tmp_path_factory.mktemp("tree")
    for path in FILES:
        place = copy / path.relative_to(ROOT)
        if place.relative_to(copy).parts[0] != "results":
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    build = "from setuptools.build_meta import build_sdist; print(build_sdist('dist'))"
    checked(sys.executable, "-c", build, folder=copy)
    (archive,) = (copy / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(copy / "unpacked", filter="data")
    (unpacked,) = (copy / "unpacked").iterdir()
    return unpacked


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """The wheel that the sdist builds, without a network."""
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    checked(*pip, "--wheel-dir", "dist", ".", folder=sdist)
    (path,) = (sdist / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """`convnext-roadmap ARGUMENTS` of a fresh environment with the wheel, in a folder.

    What the project depends on is that of the running environment, whose .pth files (an editable install of the
    checkout) do not count there.
    """
    fresh = tmp_path_factory.mktemp("fresh")
    checked(sys.executable, "-m", "venv", "--without-pip", "venv", folder=fresh)
    python = fresh / "venv" / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(checked(str(python), "-c", code, folder=fresh).strip())
    outer = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (site / "outer.pth").write_text("".join(f"{path}\n" for path in outer))
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet")
    checked(*pip, str(wheel), folder=fresh)
    hidden = ("PYTHONPATH", "PYTHONHOME", "ROADMAP_PATH")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    for module in ("convnext_roadmap", "roadmap", "experiments", "analysis"):
        code = f"import {module}; print({module}.__file__)"
        file = checked(str(python), "-c", code, folder=fresh, environment=environment)
        assert site in Path(file.strip()).parents

    def run(*arguments: str, folder: Path, program: str = "convnext-roadmap", **own: str) -> str:
        return checked(str(python.with_name(program)), *arguments, folder=folder, environment=environment | own)

    return run


@pytest.fixture(scope="module")
def place(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that was empty, in which one run was trained."""
    folder = tmp_path_factory.mktemp("place")
    command("train", "+step=kernel_7", *QUICK, folder=folder)
    Image.new("RGB", (40, 30)).save(folder / "black.png")
    return folder


def test_the_wheel_holds_the_whole_tree(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        held = set(file.namelist())
    asked = {str(path.relative_to(ROOT)) for path in FILES}
    packaged = {name for name in asked if name.split("/")[0] in PACKAGES} | {"convnext_roadmap.py"}
    packaged |= {f"roadmap/{name}" for name in asked if name.startswith("conf/")}
    assert packaged - held == set()
    assert {name for name in held - packaged if ".dist-info/" not in name} == set()
    assert any(name.endswith("licenses/LICENSE") for name in held)


# What is called in the folder of the run -> what it prints. A new command of `convnext-roadmap` gets a line here.
CALLS = {
    "--help": ["train ", "analyse ", "status "],
    "train --help": ["+step=kernel_7", "convnext-roadmap train +study=ladder"],
    "train +step=gelu regime=micro device=cpu --cfg job": ["label: gelu"],
    "plan --speed none +study=macro seed=0 regime=micro device=cpu": ["patchify_stem", "missing"],
    "status runs": ["1 finished"],
    "verify runs --weights": ["1 run: 1 sealed", "0 bad files"],
    "analyse runs --out report --formats svg": ["report.html", "1 of 17 steps"],
    "analyse paper --out paper --formats svg": ["17 of 17 steps"],
    "ladder --regime micro --format csv": ["separate_downsampling"],
    "explain kernel_7 --regime micro": ["kernel_size"],
    "changes --format csv": ["squeeze_excite"],
    "bench --help": ["many"],
    "settings": ["recipe.layer_decay", "data.holdout"],
    "push --help": ["convnext-roadmap push", "USER/NAME"],
    "evaluate RUN": ["top1"],
    "predict RUN black.png --top 3": ["black.png  "],
    "export RUN --format hub --out shared": ["shared"],
}


@pytest.mark.parametrize("call", CALLS)
def test_a_command_works_in_an_empty_folder(call: str, command: Command, place: Path) -> None:
    (run,) = place.glob("runs/kernel_7-*")
    said = command(*call.replace("RUN", f"runs/{run.name}").split(), folder=place)
    assert [needed for needed in CALLS[call] if needed not in said] == [], said


def test_a_run_is_sealed_and_names_no_commit(place: Path) -> None:
    (record,) = (json.loads(path.read_text()) for path in place.glob("runs/*/result.json"))
    assert (record["step"], record["status"]) == ("kernel_7", "finished")
    assert record["git"] == {"commit": None, "dirty": None}


def test_a_mistake_has_its_exit_code(command: Command, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"convnext-roadmap train --cfg job lists all"):
        command("train", "nonsense=1", folder=tmp_path)
    with pytest.raises(AssertionError, match="trian is not a command of convnext-roadmap: train, "):
        command("trian", folder=tmp_path)


def test_a_study_and_a_step_of_ones_own(command: Command, tmp_path: Path) -> None:
    for name, text in (("step/more_smoothing", STEP), ("study/smoothing", STUDY)):
        (tmp_path / "mine" / name).parent.mkdir(parents=True)
        (tmp_path / "mine" / f"{name}.yaml").write_text(text)
    said = command("train", "+study=smoothing", *QUICK, folder=tmp_path, ROADMAP_PATH="mine")
    assert "2 of 2 runs finished" in said
    labels = {yaml.safe_load(path.read_text())["label"] for path in tmp_path.glob("runs/*/config.yaml")}
    assert labels == {"separate_downsampling", "more_smoothing"}
    assert "more_smoothing" in command("status", "runs", folder=tmp_path, ROADMAP_PATH="mine")


def test_the_modules_are_called_as_in_a_checkout(command: Command, place: Path) -> None:
    assert "1 finished" in command("-m", "experiments", "status", "runs", folder=place, program="python")
    assert "usage: python -m analysis" in command("-m", "analysis", "--help", folder=place, program="python")
    assert "analyse" in command("-m", "convnext_roadmap", "--help", folder=place, program="python")
