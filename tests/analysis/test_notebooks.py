"""The notebooks run from start to end, hold no logic of their own, and are committed without outputs."""

import ast
import json

import pytest

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "analysis" / "notebooks").glob("*.ipynb"))
IDS = [path.stem for path in NOTEBOOKS]


def code_of(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    return [("".join(cell["source"]), cell) for cell in cells]


def test_both_are_there():
    assert IDS == ["explore_a_step", "ladder"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_no_outputs_and_no_logic(path):
    for source, cell in code_of(path):
        assert not cell["outputs"] and cell["execution_count"] is None
        tree = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("%")))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_runs_from_start_to_end(path, require):
    nbclient = pytest.importorskip("nbclient", reason="the notebooks extra is not installed")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert not [output for output in outputs if output.output_type == "error"]
