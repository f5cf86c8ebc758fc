"""`python -m analysis`: from runs, from a partial study, from nothing and from the paper to files and one page."""

import csv
import json
import re
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from analysis.__main__ import main
from roadmap import step_at
from tests.analysis import factory
from tests.analysis.test_ladder import NAMES, PUBLISHED
from tests.analysis.test_records import STARTS

FILES = {"ladder.png", "ladder.svg", "ladder.pdf", "ladder.csv", "ladder.md", "ladder.tex", "report.html"}


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A ladder with everything that can go wrong in it, analysed: (runs, out)."""
    folder = tmp_path_factory.mktemp("study")
    runs, out = folder / "runs", folder / "out"
    records = [r for r in factory.ladder(PUBLISHED.get) if r["step"] not in ("gelu", "kernel_9")]
    records += [factory.record("kernel_9", seed, None, status="diverged", loss=None, top1_best=None) for seed in (0, 1)]
    records[0]["starts"] = STARTS
    records += factory.ladder(lambda name: 60.0, seeds=[0], steps=["resnet50", "kernel_7"], data="digits")
    factory.write_all(runs, records, metrics=True)
    width = next(r for r in records if (r["step"], r["seed"]) == ("width", 2))
    (runs / "studies").mkdir()
    jobs = {"jobs": [["seed=2", "+step=width", "+study=ladder"]], "runs": [{"run_id": width["run_id"]}]}
    (runs / "studies" / "ladder-01234567.json").write_text(json.dumps(jobs))
    (runs / "studies" / "broken.json").write_text("{")
    hostile = runs / "<script>alert(1)-micro-s0-0123456789ab"
    hostile.mkdir()
    (hostile / "error.json").write_text(json.dumps({"message": "<img src=x onerror=alert(2)>"}))
    (hostile / "config.yaml").write_text("step: gelu\nbudget: {name: proxy}\ndata: {name: fashion_mnist}\n")
    assert main([str(runs), "--out", str(out)]) == 0
    return runs, out


def test_files_and_one_row_per_step(study):
    out = study[1]
    assert FILES | {"runs.csv", "skipped.csv"} <= {path.name for path in out.iterdir()}
    assert [row["step"] for row in rows_of(out / "ladder.csv")] == NAMES
    figures = {path.name for path in (out / "figures").iterdir()}
    for name in ("gains", "accuracy-gmacs", "accuracy-params", "accuracy-images-per-second", "kernels", "curves"):
        assert {f"{name}.png", f"{name}.svg", f"{name}.pdf"} <= figures


def test_the_page_says_which_runs_are_put_together_of_unlike_starts(study):
    page = (study[1] / "report.html").read_text()
    assert "Times that a run was started: not recorded" in page
    assert page.count("Mixed: ") == 1
    assert "from step 10 on: threads 1 -&gt; 2." in page
    assert [row["mixed"] for row in rows_of(study[1] / "runs.csv") if row["mixed"]] == [
        "from step 10 on: threads 1 -> 2"
    ]


def test_each_group_has_its_folder_and_the_top_shows_the_fullest(study):
    out = study[1]
    page = (out / "report.html").read_text()
    assert "fashion_mnist" in page.split("<h1>")[1].split("</h1>")[0]
    assert "This page shows the ladder with most steps" in page
    assert 'href="micro-digits-proxy/report.html"' in page
    assert {path.name for path in (out / "micro-digits-proxy").iterdir()} >= FILES


def test_select_narrows_the_runs(study, tmp_path):
    assert main([str(study[0]), "--out", str(tmp_path), "--select", "data=digits", "--formats", "png"]) == 0
    rows = rows_of(tmp_path / "ladder.csv")
    assert [row["step"] for row in rows if row["top1"]] == ["resnet50", "kernel_7"]
    assert not (tmp_path / "ladder.pdf").exists()


class Links(HTMLParser):
    """Everything that a page loads or points to."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)


def test_page_stands_alone_and_escapes_what_records_hold(study):
    page = (study[1] / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert all(link.startswith("data:") or link == "micro-digits-proxy/report.html" for link in links.found)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", page.split("<main>")[0])
    assert "<script>alert(1)" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_page_holds_provenance_commands_and_what_is_missing(study):
    page = (study[1] / "report.html").read_text()
    assert "python run.py +step=kernel_7 regime=micro recipe=enhanced budget=proxy data=fashion_mnist seed=1" in page
    assert "python run.py seed=2 +step=width</code>" in page  # from the frozen study
    assert "commit 0123456789ab" in page and "torch 2.15.0" in page
    assert "Failed: ReLU → GELU." in page and "Diverged: kernel size → 9." in page
    assert "To train what is missing: python run.py -m +step=gelu " in page and "seed=0,1,2" in page
    assert str(study[0]) not in page


def test_the_papers_own_numbers_go_through_the_whole_path(tmp_path, capsys):
    assert main(["paper", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} >= FILES
    rows = rows_of(tmp_path / "ladder.csv")
    assert [(row["step"], float(row["top1"])) for row in rows] == list(PUBLISHED.items())[:17]
    base = rows_of(tmp_path / "paper-base" / "ladder.csv")
    assert float(base[-1]["top1"]) == 83.6
    assert "17 of 17 steps" in capsys.readouterr().out


def test_no_runs_yet_gives_the_paper_and_says_so(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--formats", "png"]) == 0
    assert "no finished run" in (tmp_path / "out" / "report.html").read_text()
    assert "no finished run" in capsys.readouterr().out


def test_a_single_run_is_enough(tmp_path):
    factory.write(tmp_path / "runs", factory.record("kernel_7"))
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--formats", "png"]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "1 of 17 steps" in page


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["nowhere"], 5, "not a folder"),
        ([".", "--select", "colour=red"], 2, "no such key"),
        (["paper", "--formats", "gif"], 2, "png, svg, pdf"),
    ],
)
def test_user_errors_are_one_line_with_their_code(tmp_path, monkeypatch, capsys, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--out", "out"]) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1


# --- the page in a browser ---

CHECK = """
<script>
const problems = [];
window.addEventListener("error", (event) => problems.push(event.message));
window.addEventListener("load", () => {
  const report = { problems, tables: [], images: [] };
  for (const image of document.images) report.images.push(image.complete && image.naturalWidth > 100);
  const shown = (cell) => cell.dataset.key ?? cell.textContent;
  const column = (table, i) => [...table.tBodies[0].rows].map((row) => shown(row.cells[i]));
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const result = { heads: heads.map((h) => h.textContent.trim()), rows: table.tBodies[0].rows.length, sorted: [] };
    heads.forEach((head, i) => {
      head.querySelector("button").click();
      const up = column(table, i), ascending = head.getAttribute("aria-sort");
      head.querySelector("button").click();
      result.sorted.push([up, column(table, i), ascending, head.getAttribute("aria-sort")]);
    });
    report.tables.push(result);
  }
  report.width = window.innerWidth;
  report.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  window.parent.postMessage(JSON.stringify(report), "*");
});
</script>
"""
FRAME = """
<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><pre id="check"></pre>
<script>addEventListener("message", (event) => { document.querySelector("pre").textContent = event.data; });</script>
<iframe src="NAME" style="width: WIDTHpx; height: 3000px; border: 0"></iframe>
"""


def in_browser(chromium, page, folder, width):
    """Open a page with our check in it, in a frame as wide as a phone, say; returns (found, console lines)."""
    checked = folder / f"checked-{width}.html"
    checked.write_text(page.replace("<head>", "<head>" + CHECK, 1))
    frame = folder / f"frame-{width}.html"
    frame.write_text(FRAME.strip().replace("NAME", checked.name).replace("WIDTH", str(width)))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    flags += ["--no-first-run", "--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / f'profile-{width}'}"]
    flags += ["--window-size=1400,3200", "--virtual-time-budget=20000", "--timeout=60000", "--dump-dom"]
    done = subprocess.run([chromium, *flags, frame.as_uri()], capture_output=True, text=True, timeout=180, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    found = re.search(r'<pre id="check">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stdout[-2000:]
    return json.loads(found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")), console


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_page_works_in_a_browser(study, chromium, tmp_path, width):
    report, console = in_browser(chromium, (study[1] / "report.html").read_text(), tmp_path, width)
    assert report["width"] == width
    assert not console
    assert not report["problems"]
    assert len(report["images"]) == 7 and all(report["images"])
    assert report["overflow"] <= 0  # wide tables scroll inside their box
    assert len(report["tables"]) == 4
    for table in report["tables"]:
        for up, down, first, second in table["sorted"]:
            assert (first, second) == ("ascending", "descending")
            keys = [float(key) for key in up if re.fullmatch(r"-?[\d.]+(e-?\d+)?", key)]
            if keys and len(keys) == len(set(up) & set(up)) == len(up):
                assert keys == sorted(keys)
                assert [float(key) for key in down] == sorted(keys, reverse=True)
    ladder = report["tables"][0]
    assert ladder["rows"] == 17
    up = ladder["sorted"][ladder["heads"].index("top-1 (n)")][0]
    assert up[-2:] == ["diverged", "failed"] or set(up[-2:]) == {"diverged", "failed"}  # no number: last
    assert [float(key) for key in up[:-2]] == sorted(float(key) for key in up[:-2])


# --- sets of changes ---


def test_page_of_a_study_over_sets(tmp_path):
    players = factory.STEPS[-1].changes
    sets = [players, *(tuple(p for p in players if p != out) for out in players), (), *((p,) for p in players)]
    random = np.random.default_rng(0)
    for one in sets:
        for seed in range(2):
            step = step_at(one)
            top1 = 80 + 0.3 * len(one) + 0.02 * random.standard_normal()
            status = "diverged" if one == ("layer_norm",) and seed else "finished"
            record = factory.record(step, seed, round(top1, 3), changes=one, recipe="enhanced", status=status)
            factory.write(tmp_path / "runs", record)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--formats", "png"]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert (
        "Each change by itself" in page and "Left out: separate_downsampling minus the same without the change." in page
    )
    assert "Diverged: layer_norm." in page and ">diverged</td>" in page and "diverged: −" not in page
    assert "n = 2 per set at least" in page and "would be found with 80 % power" in page
    assert (tmp_path / "out" / "figures" / "attribution.png").exists()
