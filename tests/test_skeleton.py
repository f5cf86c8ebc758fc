"""Rules that hold for the whole tree: who imports whom, what code may never do, how files look, what is pinned."""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, require

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGES = ("roadmap", "experiments", "analysis")
NEVER_IMPORTED = {
    "roadmap": {"hydra", "experiments", "analysis", "run", "convnext_roadmap"},
    "experiments": {"analysis", "run", "convnext_roadmap"},
    "analysis": {"torch", "torchvision", "timm", "hydra", "run", "convnext_roadmap"},
}
# Importing these loads neither torch nor, unless it is their work, hydra.
LIGHT_MODULES = {
    "roadmap": {"torch", "hydra", "matplotlib"},
    "analysis": {"torch", "hydra"},
    "experiments.config.settings": {"torch", "hydra"},
    "experiments.config.schema": {"torch"},
    "experiments.config.identity": {"torch", "hydra"},
    "experiments.store.run_dir": {"torch", "hydra"},
    "experiments.errors": {"torch", "hydra"},
    "experiments.randomness": {"torch", "hydra"},
    "run": {"torch"},
    "convnext_roadmap": {"torch", "hydra"},
}
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BANNED_NAMES = {"eval", "exec"}
BANNED_CALLS = {
    *("torch.load", "torch.save", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
    *("os.system", "os.popen", "pd.read_pickle", "pandas.read_pickle", "subprocess.getoutput"),
}
BANNED_KEYWORDS = {"shell": True, "allow_pickle": True, "weights_only": False}
BINARY_SUFFIXES = {".png", ".pdf", ".jpg", ".jpeg", ".gz", ".safetensors", ".ico"}
GENERATED_SUFFIXES = {".svg", ".csv", ".json", ".jsonl", ".ipynb", ".html"}  # written by programs, read by programs
MACHINE_PATH = re.compile(r"(?<![\w.}>~-])/(?:home|root|Users|work|opt|mnt)/\w|[A-Z]:\\Users|\.\./" + "shared")
PIN = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+-]+( ; [()a-z_]+ .+)?")


def tree_files() -> list[Path]:
    """All files of the tree that git does not ignore; without git, all that lie where the tree's files lie."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode == 0:
        files = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        places = (*PACKAGES, "conf", "tests", "docs", ".ci")
        files = [*ROOT.glob("*"), *(path for place in places for path in (ROOT / place).rglob("*"))]
    return sorted(path for path in files if path.is_file() and "__pycache__" not in path.parts)


FILES = tree_files()
TEXTS = [path for path in FILES if path.suffix not in BINARY_SUFFIXES]
PROGRAMS = ("run.py", "convnext_roadmap.py")
CODE = [path for path in FILES if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in (*PACKAGES, *PROGRAMS)]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Every imported module with its line: `import a.b`, `from a.b import c`, relative ones made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, package if node.level else str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            yield from ((node.lineno, arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def violations(source: str) -> list[str]:
    """What `source` does that no code of this project may do, one entry with its line each."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += [f"{line}: import {name}" for line, name in imports_of(node, "") if name.split(".")[0] in PICKLES]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in BANNED_CALLS or (isinstance(node.func, ast.Name) and called in BANNED_NAMES):
                found.append(f"{node.lineno}: {called}()")
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if keyword.arg in BANNED_KEYWORDS and value is BANNED_KEYWORDS[keyword.arg]:
                    found.append(f"{node.lineno}: {keyword.arg}={value}")
    return found


# What one benchmark needs and nothing else may import: a peer where it is installed.
PEERS_ONLY = {"experiments/bench/attribution.py": "shapiq", "experiments/bench/lightning_loop.py": "lightning"}


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_packages_import_only_what_lies_below_them(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    never = NEVER_IMPORTED.get(package, {"analysis"})
    imported = imports_of(ast.parse(path.read_text(encoding="utf-8")), package)
    allowed = PEERS_ONLY.get(name_of(path), "")
    assert [(line, name) for line, name in imported if name.split(".")[0] in never - {allowed}] == []


# The wings of experiments/ from the top down, as docs/contributing.md draws them; below them lies the ground.
WINGS = ("bench", "commands", "studies", "training", "data", "store", "runtime", "config")


@pytest.mark.parametrize("wing", WINGS)
def test_no_arrow_between_wings_points_up(wing: str) -> None:
    above = [f"experiments.{other}" for other in WINGS[: WINGS.index(wing)]]
    for path in (ROOT / "experiments" / wing).rglob("*.py"):
        imported = imports_of(ast.parse(path.read_text(encoding="utf-8")), "")
        assert [(line, name) for line, name in imported if name.startswith(tuple(above))] == [], path


def test_the_ground_of_experiments_knows_no_wing() -> None:
    wings = tuple(f"experiments.{wing}" for wing in WINGS)
    for path in (ROOT / "experiments").glob("*.py"):
        if path.name != "__main__.py":  # which imports a command when it is called
            assert not [name for _, name in imports_of(ast.parse(path.read_text()), "") if name.startswith(wings)], path


def test_in_roadmap_what_shows_and_what_counts_effects_build_on_the_network_alone() -> None:
    """Neither knows of the other, nor the network of them; only the commands and the look-up of names know all."""
    arrows = set()
    for path in (ROOT / "roadmap").rglob("*.py"):
        group = path.parent.name
        for _, name in imports_of(ast.parse(path.read_text(encoding="utf-8")), "roadmap"):
            other = re.match(r"roadmap\.(show|effects)\b", name)
            if other and other[1] != group and path.name != "__main__.py":
                arrows.add((name_of(path), name))
    assert arrows == set()


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_load_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(sorted({LIGHT_MODULES[module]!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_code_uses_no_pickle_no_eval_no_shell(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import dumps",
        "import torch\ntorch.load('weights.pth')",
        "torch.load(path, weights_only=True)",
        "eval('1')",
        "exec(text)",
        "yaml.load(text, Loader=Loader)",
        "subprocess.run('ls', shell=True)",
        "np.load(path, allow_pickle=True)",
        "os.system('ls')",
    ],
)
def test_the_rule_against_pickle_eval_and_shells_bites(source: str) -> None:
    assert violations(source)


@pytest.mark.parametrize("source", ["model.eval()", "yaml.safe_load(text)", "subprocess.run(['ls'], shell=False)"])
def test_the_rule_against_pickle_eval_and_shells_spares_harmless_code(source: str) -> None:
    assert violations(source) == []


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_no_file_names_a_machine(path: Path) -> None:
    if path == Path(__file__):
        pytest.skip("holds the pattern itself")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [(number, line) for number, line in enumerate(lines, 1) if MACHINE_PATH.search(line)] == []


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_text_files_are_clean(path: Path) -> None:
    content = path.read_bytes()
    assert b"\r" not in content
    if path.suffix in GENERATED_SUFFIXES or not content:
        return
    text = content.decode("utf-8")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert [number for number, line in enumerate(text.split("\n"), 1) if line != line.rstrip()] == []
    if path.name != "Makefile":
        assert "\t" not in text


def test_no_large_file() -> None:
    """A report is one page with all its figures in it, and may be larger than anything else."""
    large = [path for path in FILES if path.stat().st_size > (4_000_000 if path.name == "report.html" else 2_000_000)]
    assert [name_of(path) for path in large] == []


def test_constraints_are_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not PIN.fullmatch(line)] == []


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(item for extra in project["optional-dependencies"].values() for item in extra)]
    pinned = {normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {normal(re.split(r"[^\w.-]", item)[0]) for item in asked} - pinned == set()


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".py"], ids=name_of)
def test_every_import_is_declared(path: Path) -> None:
    """Nothing is imported that only happens to be installed: standard library, own packages, declared dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(item for extra in project["optional-dependencies"].values() for item in extra)]
    module_names = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn", "hydra-core": "hydra"}
    declared = {normal(re.split(r"[^\w.-]", item)[0]) for item in asked}
    known = {module_names.get(name, name.replace("-", "_")) for name in declared}
    known |= {*sys.stdlib_module_names, *PACKAGES, "run", "tests", "conf", "hydra_plugins", "tomllib"}
    known |= {PEERS_ONLY.get(name_of(path), ""), "convnext_roadmap"}
    package = path.relative_to(ROOT).parts[0]
    imported = imports_of(ast.parse(path.read_text(encoding="utf-8")), package)
    assert [(line, name) for line, name in imported if name.split(".")[0] not in known] == []


def test_every_marker_is_registered(pytestconfig: pytest.Config) -> None:
    registered = {line.split(":")[0].split("(")[0].strip() for line in pytestconfig.getini("markers")}
    used = set()
    for path in FILES:
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] == "tests":
            used |= set(re.findall(r"\bpytest\.mark\.(\w+)", path.read_text(encoding="utf-8")))
    assert used - registered == set()


@pytest.fixture
def bare_clone(tmp_path: Path) -> Path:
    """A folder with what `make setup` reads, and no environment."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    # `make test` is how these tests are run: without its variables this is a make of its own, not a sub-make.
    own = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "MFLAGS"}
    return subprocess.run(["make", *arguments], cwd=folder, env=own, capture_output=True, text=True, check=False)


def test_make_setup_runs_again_only_when_something_changed(bare_clone: Path) -> None:
    stamp = bare_clone / ".venv" / ".setup-done"
    stamp.parent.mkdir()
    stamp.touch()
    start = time.perf_counter()
    assert make(bare_clone, "setup").stdout == "make: Nothing to be done for 'setup'.\n"
    assert time.perf_counter() - start < 1
    later = stamp.stat().st_mtime + 1
    os.utime(bare_clone / "constraints.txt", (later, later))
    assert make(bare_clone, "--question", "setup").returncode == 1


def test_make_setup_without_a_fitting_python_says_so_in_one_line(bare_clone: Path) -> None:
    result = make(bare_clone, "setup", "PYTHON=")
    assert result.returncode != 0
    assert result.stdout == ""
    first, *rest = result.stderr.splitlines()
    assert first.startswith("setup needs Python 3.10 or newer")
    assert all(line.startswith("make: ***") for line in rest)
    assert not (bare_clone / ".venv").exists()


@pytest.mark.parametrize(
    "required, outcome",
    [("", pytest.skip.Exception), ("ray", pytest.skip.Exception), ("ray, slurm", pytest.fail.Exception)],
)
def test_a_missing_need_skips_unless_required(
    required: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUIRE", required)
    with pytest.raises(outcome, match="no cluster"):
        require("slurm", False, "no cluster here")
    require("slurm", True, "no cluster here")
