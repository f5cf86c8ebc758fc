"""Records, metrics, configs, studies, folder names and overrides that are not what the program wrote.

Each is planted in a folder of runs, which `status` and `analysis` then look at; every fifth trial is a command line
instead. None may end either of them, hide or change another run, write outside the answer's folder, hang, or get a
control character, a formula or markup into what is shown.
"""

import csv
import io
import os
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from experiments.store.cache import VARIABLE
from tests.analysis import factory
from tests.storms import fleet
from tests.storms.hostile import watch
from tests.storms.texts import KINDS, NUMBERS, SHAPES, TEXTS, Place

SECONDS = 120.0
CODES = (0, 2, 5)
TYPED = 5  # every so many trials one is a command line
STEPS = ("resnet50", "enhanced_recipe", "gelu", "layer_norm")
RECORDED = Path("results/fashion_mnist")  # of which one study is a template
KEYS = ("runs_dir", "data.root", "data", "+step", "add", "seed", "recipe.lr", "device", "init_from", "study.file")
KEYS = (*KEYS, "+study", "design.act", "budget", "recipe.opt", "logger.project", "batch.micro", "regime", "roadmap")
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def make_template(runs: Path) -> None:
    """A small ladder of sealed runs, a failed run and a study, as the program writes them."""
    from experiments.store.run_dir import RunDir
    from experiments.strict_json import dump, read_object
    from experiments.studies import frozen

    factory.write_all(runs, factory.ladder(lambda step: 70.0 + len(step) / 10, seeds=(0, 1), steps=STEPS), metrics=True)
    (source,) = (fleet.ROOT / RECORDED / "studies").glob("leave_one_out-*.json")
    content = read_object(source, frozen.STUDY_LIMIT)
    sample = next((fleet.ROOT / RECORDED).glob("gelu-*-s0-*"))
    for run in list(runs.iterdir()):
        shutil.copy(sample / "config.yaml", run)
    study = runs / "studies" / source.name
    study.parent.mkdir()
    study.write_bytes(dump(content | {"jobs": content["jobs"][:2], "runs": content["runs"][:2]}))
    asked = frozen.read_study(study).runs[0]
    place = RunDir.locate(asked.replace(runs_dir=str(runs)))
    place.path.mkdir()
    for name in ("config.yaml", "metrics.jsonl", "timing.jsonl"):
        shutil.copy(sample / name, place.path / name)
    place.fail(RuntimeError("no luck"))
    (place.path / ".claim").write_bytes(dump({"pid": 1, "host": "elsewhere", "boot": "b", "since": "now"}))


def place_in(runs: Path, chosen: random.Random) -> Place:
    """What may be planted upon in a copy of the template."""
    (half,) = (path.parent for path in runs.glob("*/error.json"))
    (study,) = runs.glob("studies/*.json")
    sealed = chosen.choice(sorted(path.parent for path in runs.glob("*/result.json")))
    return Place(runs, sealed, half, study, chosen)


def look(runs: Path, out: Path) -> None:
    """What is done in each trial: `status`, then `analysis`, each with the exit code that it would have."""
    from analysis.__main__ import main as analyse
    from experiments.__main__ import main as command
    from roadmap.pipes import quietly

    os.environ["COLUMNS"] = "4000"  # no line of the table is folded
    print("status", quietly(lambda: command(["status", str(runs)])), flush=True)
    print("analysis", quietly(lambda: analyse([str(runs), "--out", str(out), "--formats", "svg"])), flush=True)


def planted(index: int, chosen: random.Random, template: Path, home: Path) -> list[str]:
    """One planted thing; what went wrong."""
    kind = list(KINDS)[(index - (index + 1) // TYPED) % len(KINDS)]
    runs, out, report = home / "runs", home / "out", home.parent / "report"
    shutil.copytree(template, runs)
    place = place_in(runs, chosen)
    sealed = {path.parent.name for path in runs.glob("*/result.json")} - {place.sealed.name}
    KINDS[kind](place)
    code, text = _ended(fleet.fork(partial(_watched, partial(look, runs, out), home, report), home.parent / "log"))
    problems = _problems(code, text, report)
    codes = dict(re.findall(r"^(status|analysis) (\d+)$", text, re.MULTILINE))
    problems += [f"{name} ended with {codes.get(name)}" for name in ("status", "analysis") if codes.get(name) != "0"]
    problems += [f"status hides {name}" for name in sealed if name not in text]
    return [f"{kind}: {problem}" for problem in [*problems, *_answer_problems(out, sealed)]]


def typed(chosen: random.Random, home: Path) -> list[str]:
    """One command line of which a value is hostile; it is resolved and not run."""
    from experiments.config.quoting import override

    key = chosen.choice(KEYS)
    value = chosen.choice((chosen.choice(TEXTS), str(chosen.choice(NUMBERS)), repr(chosen.choice(SHAPES))))
    word = override(key, value[:5000]) if chosen.random() < 0.6 else f"{key}={value[:5000]}"
    report, home = home.parent / "report", home
    home.mkdir()

    def work() -> None:
        import runpy

        os.chdir(home)
        sys.argv = ["run.py", "--cfg", "job", "device=cpu", word]
        runpy.run_path(str(fleet.ROOT / "run.py"), run_name="__main__")

    code, text = _ended(fleet.fork(partial(_watched, work, home, report), home.parent / "log"))
    problems = _problems(code, text if code else "", report)
    if code and sum(line.startswith("error: ") for line in text.splitlines()) != 1:
        problems.append(f"not one line of error: {text[:300]}")
    return [f"{word[:80]!r}: {problem}" for problem in problems]


def _watched(work: Callable[[], None], home: Path, report: Path) -> None:
    os.environ[VARIABLE] = str(home / ".kept")
    watch(home, report)()
    work()


def _ended(child: fleet.Child) -> tuple[int, str]:
    try:
        return child.wait(SECONDS), child.text()
    except TimeoutError:
        return -1, child.text()


def _problems(code: int, text: str, report: Path) -> list[str]:
    problems = [] if code in CODES else [f"ended with {code}: {text[-500:]}"]
    if "Traceback" in text:
        problems.append(f"a traceback: {text[-500:]}")
    if found := UNSEEN.search(text):
        problems.append(f"{found[0]!r} reaches the terminal")
    if report.exists():
        problems.append(f"attempted {report.read_text().splitlines()[:3]}")
    return problems


def _answer_problems(out: Path, sealed: set[str]) -> list[str]:
    """What is wrong with the files of the analysis: a run too few, text that is more than text."""
    problems = []
    counted: set[str] = set()
    for path in sorted(out.rglob("*")):
        text = path.read_text(encoding="utf-8") if path.suffix in (".csv", ".md", ".tex", ".html") else ""
        if UNSEEN.search(text):
            problems.append(f"{path.name} holds what cannot be seen")
        if path.suffix == ".csv":
            rows = list(csv.reader(text.splitlines()))
            bad = [cell for row in rows for cell in row if cell[:1] in "=+-@" and cell and not _is_number(cell)]
            problems += [f"{path.name}: a formula {bad[0]!r}"] if bad else []
            counted |= {row[0] for row in rows} if path.name == "runs.csv" else set()
        if path.suffix == ".html" and text.count("<script") != 1:
            problems.append(f"{path.name} holds a script of others")
    return problems + [f"runs.csv lacks {name}" for name in sorted(sealed - counted)]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def trial(index: int, seed: int, template: Path) -> str | None:
    """One trial; what went wrong, or None."""
    chosen = random.Random(f"records {seed} {index}")
    with tempfile.TemporaryDirectory(prefix="records-", ignore_cleanup_errors=True) as name:
        home = Path(name) / "home"
        problems = typed(chosen, home) if index % TYPED == TYPED - 1 else planted(index, chosen, template, home)
        beside = sorted(path.name for path in Path(name).iterdir() if path.name not in ("home", "log", "report"))
        problems += [f"{index}: {beside} beside the folder"] if beside else []
    return f"trial {index}, {'; '.join(problems)}" if problems else None


def run(count: int, seed: int = 0, jobs: int = 2) -> dict[str, Any]:
    """`count` trials, every kind in turn."""
    with tempfile.TemporaryDirectory(prefix="records-") as name:
        template = Path(name) / "home" / "runs"
        make_template(template)
        with redirect_stdout(io.StringIO()):  # imports and caches what the forked trials need
            look(template, Path(name) / "home" / "out")
        results = fleet.every(partial(trial, seed=seed, template=template), count, jobs, "records")
    return fleet.figures(
        results,
        f"records, metrics, configs, studies, folder names ({len(KINDS)} kinds) and overrides that nobody"
        " wrote: status and analysis show all other runs, one line each, nothing written outside, all text escaped",
    )
