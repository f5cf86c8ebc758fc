"""What every test may use: `require`, and the places of things that live outside the tree.

A test that needs a server, a browser, a device or a data set is skipped with a reason where that is missing. Naming
the need in the environment variable REQUIRE (comma-separated: `REQUIRE=slurm,ray,browser,fashion_mnist`) turns the skip
into a failure, so that CI cannot pass by skipping. The markers slurm, ray, browser and gpu check their need themselves.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FASHION_MNIST_FILES = tuple(
    f"{split}-{part}" for split in ("train", "t10k") for part in ("images-idx3-ubyte", "labels-idx1-ubyte")
)
FASHION_MNIST_PLACES = (
    Path("/usr/share/datasets/fashion-mnist"),  # Debian's dataset-fashion-mnist
    ROOT / "data" / "fashion-mnist",
    ROOT / "data" / "FashionMNIST" / "raw",
)
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
SLURM_PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "scancel")


def require(name: str, available: bool, reason: str) -> None:
    """Skip the running test with `reason` unless `available`; fail instead when `name` is listed in REQUIRE."""
    if available:
        return
    required = {item.strip() for item in os.environ.get("REQUIRE", "").split(",")}
    if name in required:
        pytest.fail(f"REQUIRE names {name}, but: {reason}", pytrace=False)
    pytest.skip(reason)


def find_program(name: str) -> str | None:
    """The path of a program, also where a user's PATH leaves out the system directories; None if there is none."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))


def find_chromium() -> str | None:
    """The path of a Chromium or Chrome, None if there is none."""
    return next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)


def has_fashion_mnist(folder: Path) -> bool:
    """Whether `folder` holds the four IDX files, compressed or not."""
    return all(any((folder / f"{name}{end}").is_file() for end in ("", ".gz")) for name in FASHION_MNIST_FILES)


def require_slurm() -> None:
    """Skip or fail unless a SLURM cluster can be started here and submitit is installed."""
    missing = [name for name in SLURM_PROGRAMS if find_program(name) is None]
    require("slurm", not missing, f"not installed: {', '.join(missing)} (Debian: slurm-wlm munge)")
    require("slurm", importlib.util.find_spec("submitit") is not None, "the slurm extra is not installed")


def require_gpu() -> None:
    """Skip or fail unless there is a CUDA device."""
    import torch

    require("gpu", torch.cuda.is_available(), "no CUDA device")


NEEDS: dict[str, Callable[[], None]] = {
    "slurm": require_slurm,
    "ray": lambda: require("ray", importlib.util.find_spec("ray") is not None, "the ray extra is not installed"),
    "browser": lambda: require("browser", find_chromium() is not None, "no Chromium (Debian: chromium)"),
    "gpu": require_gpu,
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of one server on one worker: a second cluster beside the first would fight for ports and cores."""
    for item in items:
        for name in ("slurm", "ray"):
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.xdist_group(name))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check what the test's markers need before any fixture starts."""
    for name, check in NEEDS.items():
        if item.get_closest_marker(name):
            check()


@pytest.fixture(scope="session", autouse=True)
def _caches_of_tests_go_with_them(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What `status` and the analysis keep of folders that are gone tomorrow does not belong into the user's cache."""
    os.environ["ROADMAP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the source tree."""
    return ROOT


@pytest.fixture(name="require", scope="session")
def require_fixture() -> Callable[[str, bool, str], None]:
    """`require` for tests that take it as an argument."""
    return require


@pytest.fixture
def chromium() -> str:
    """The path of a Chromium; the test is skipped, or fails in CI, without one."""
    path = find_chromium()
    require("browser", path is not None, "no Chromium (Debian: chromium)")
    assert path is not None
    return path


@pytest.fixture
def fashion_mnist_root() -> Path:
    """A folder with Fashion-MNIST's four IDX files; FASHION_MNIST_ROOT is tried before the usual places."""
    named = os.environ.get("FASHION_MNIST_ROOT")
    places = ((Path(named),) if named else ()) + FASHION_MNIST_PLACES
    found = next((place for place in places if has_fashion_mnist(place)), None)
    require("fashion_mnist", found is not None, "no Fashion-MNIST files (Debian: dataset-fashion-mnist)")
    assert found is not None
    return found
