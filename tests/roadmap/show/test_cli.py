"""`python -m roadmap`: formats, columns, and one line for every request that cannot be met."""

import csv
import io
import json
import subprocess
import sys

import pytest

from roadmap import STEPS, complexity_of
from roadmap.__main__ import main
from roadmap.regimes import REGIMES
from roadmap.show.markers import between
from roadmap.show.tables import COLUMNS, readme_ladder
from tests.conftest import ROOT

STEP_NAMES = [step.name for step in STEPS]


def printed(capsys, *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("regime", REGIMES)
def test_csv_has_a_row_per_step_with_counted_costs(capsys, regime) -> None:
    rows = list(csv.DictReader(io.StringIO(printed(capsys, "--regime", regime, "--format", "csv"))))
    assert tuple(rows[0]) == COLUMNS
    assert [row["step"] for row in rows] == STEP_NAMES
    for row in rows:
        cost = complexity_of(row["step"], regime=regime)
        assert (int(row["params"]), int(row["macs"])) == (cost.params, cost.macs)
        assert (float(row["gmacs"]), int(row["activations"])) == (round(cost.gmacs, 2), cost.activations)


def test_json_holds_the_same(capsys) -> None:
    rows = json.loads(printed(capsys, "--format", "json"))
    assert [row["step"] for row in rows] == STEP_NAMES
    assert rows[0]["parent"] == ""
    assert rows[0]["change"] == "recipe=original"
    assert rows[5] == {
        "step": "width",
        "parent": "depthwise",
        "change": "width=96",
        "params": 33_760_936,
        "macs": 5_267_976_960,
        "gmacs": 5.27,
        "activations": 16_220_392,
    }


def test_table_is_aligned_and_markdown_is_a_table(capsys) -> None:
    lines = printed(capsys, "--regime", "base").splitlines()
    assert len(lines) == 18
    assert lines[0].split() == list(COLUMNS)
    assert len({len(line) for line in lines}) == 1
    assert "depths=[3,3,27,3] width=84" in lines[3]
    markdown = printed(capsys, "--format", "md").splitlines()
    assert len(markdown) == 19
    assert {line.count("|") for line in markdown} == {len(COLUMNS) + 1}
    assert markdown[1] == "| --- | --- | --- | ---: | ---: | ---: | ---: |"


def test_size_and_classes_count(capsys) -> None:
    rows = json.loads(printed(capsys, "--format", "json", "--image-size", "32", "--num-classes", "10"))
    assert rows[0]["macs"] == complexity_of("resnet50", image_size=32, num_classes=10).macs
    assert "at 32 px with 10 classes" in printed(capsys, "--image-size", "32", "--num-classes", "10", "explain", "gelu")


def test_explain_takes_regime_add_and_drop(capsys) -> None:
    text = printed(capsys, "explain", "gelu", "--regime", "base", "--drop", "[width,kernel_7]", "--add", "kernel_11")
    assert text.startswith("kernel_11-width+gelu in regime base, compared with gelu\n")
    assert printed(capsys, "--regime", "base", "explain", "gelu") == printed(
        capsys, "explain", "gelu", "--regime", "base"
    )


REFUSED = [
    (["explain", "kernel_8"], "error: step='kernel_8' is not one of: resnet50, "),
    (["explain", "gelu", "--drop", "layer_norm"], "error: drop=layer_norm: it is not in the set; there is: "),
    (["explain", "gelu", "--add", "kernel_5,kernel_9"], "error: add=kernel_9: kernel_5 is in the same list"),
    (["explain", "gelu", "--figure", "block.bmp"], "error: block.bmp: a figure ends in .png, .svg or .pdf"),
    (
        ["explain", "gelu", "--figure", "no/such/folder/block.png"],
        "error: no/such/folder/block.png: No such file or directory",
    ),
    (["golden", "no/such/folder/complexity.csv"], "error: no/such/folder/complexity.csv: No such file or directory"),
    (["readme", "no_such_file.md"], "error: no_such_file.md: No such file or directory"),
    (["readme", "pyproject.toml"], "error: the markers <!-- ladder:begin --> and <!-- ladder:end --> "),
]


@pytest.mark.parametrize("arguments, message", REFUSED)
def test_what_cannot_be_is_one_line_and_exit_code_2(capsys, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(ROOT)
    assert main(arguments) == 2
    captured = capsys.readouterr().err
    assert captured.startswith(message)
    assert captured.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--regime", "huge"], ["--format", "xml"], ["--image-size", "0"], ["explain"]])
def test_bad_options_are_refused_by_name(capsys, arguments) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert arguments[0].removeprefix("explain") in capsys.readouterr().err


def test_figure_is_written_and_named(capsys, tmp_path) -> None:
    out = printed(capsys, "explain", "kernel_7", "--figure", str(tmp_path / "block.svg"))
    assert out.endswith(f"wrote {tmp_path / 'block.svg'}\n")
    assert (tmp_path / "block.svg").read_text().startswith("<?xml")


def test_readme_table_is_put_between_its_markers(capsys, tmp_path) -> None:
    file = tmp_path / "page.md"
    file.write_text("before\n<!-- ladder:begin -->\nold\n<!-- ladder:end -->\nafter\n")
    printed(capsys, "readme", str(file))
    text = file.read_text()
    assert between(text, "ladder").strip() == readme_ladder()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    printed(capsys, "readme", str(file))
    assert file.read_text() == text


def test_readme_table_names_side_branches_and_published_numbers() -> None:
    lines = readme_ladder().splitlines()
    assert len(lines) == 19
    assert sum("(side branch)" in line for line in lines) == 3
    assert lines[2].startswith("| `resnet50` | `recipe=original` | 25.56 | 4.09 | 76.13 | 15.01 | 78.20 |")


def test_as_a_command_without_torch_and_matplotlib() -> None:
    program = (
        "import sys\nfrom roadmap.__main__ import main\n"
        "main([]); main(['explain', 'gelu'])\n"
        "assert not {'torch', 'matplotlib', 'timm', 'hydra'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT)
    done = subprocess.run(
        [sys.executable, "-m", "roadmap", "explain", "nothing"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: step='nothing'")
