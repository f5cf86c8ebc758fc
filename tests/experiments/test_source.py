"""The program's own code runs nothing that a file says: no pickle, torch.load, eval, yaml.load or shells."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

BANNED_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "numpy.lib.format"}
BANNED_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.save", "torch.hub.load",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.dump", "hydra.utils.instantiate", "pandas.read_pickle",
    "pd.read_pickle", "subprocess.getoutput", "subprocess.getstatusoutput",
}  # fmt: skip


def dotted(node: ast.expr) -> str:
    """The name of a called thing as it is written."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"{node.lineno}: import {a.name}" for a in node.names if a.name in BANNED_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in BANNED_MODULES:
            yield f"{node.lineno}: from {node.module} import"
        elif isinstance(node, ast.Call):
            if dotted(node.func) in BANNED_CALLS:
                yield f"{node.lineno}: {dotted(node.func)}"
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if keyword.arg in ("shell", "allow_pickle") and value is not False:
                    yield f"{node.lineno}: {keyword.arg}={value}"
                if keyword.arg == "weights_only" and value is not True:
                    yield f"{node.lineno}: weights_only={value}"


def test_the_code_runs_nothing_that_a_file_says(repo_root: Path) -> None:
    files = [
        repo_root / "run.py",
        *(f for place in ("roadmap", "experiments", "analysis") for f in repo_root.glob(f"{place}/**/*.py")),
    ]
    assert len(files) > 20
    found = [f"{file.relative_to(repo_root)}:{o}" for file in files for o in offences(ast.parse(file.read_text()))]
    assert found == []


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from pickle import loads", "torch.load(f)", "yaml.load(f)", "eval('1')", "exec(code)",
     "subprocess.run('ls', shell=True)", "numpy.load(f, allow_pickle=True)", "torch.hub.load('x')"],
)  # fmt: skip
def test_the_check_can_fail(code: str) -> None:
    assert list(offences(ast.parse(code)))


def test_harmless_namesakes_pass() -> None:
    assert not list(offences(ast.parse("re.compile('a'); model.eval(); torch.compile(m); yaml.safe_load(f)")))
