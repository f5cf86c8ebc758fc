"""Damaged checkpoints: bit flips anywhere, cuts, zeroed and exchanged pages, swapped tensors, foreign and stale files.

Each of them must be found before anything is loaded, be reported in a line, and the older generation be used; when
both are damaged, nothing is loaded. For contrast, torch.load reads the same state damaged in the same ways.
"""

import io
import logging
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from experiments.store import atomic
from experiments.store.checkpoint import MANIFEST, STATE, Checkpoints
from tests.storms import fleet

RUN, OTHER_RUN = "a" * 64, "b" * 64
OLDER, NEWEST = 10, 20
PAGE = 4096


@cache
def state_of(step: int, other: bool = False) -> dict[str, torch.Tensor]:
    """A real network's state with optimizer moments and an average of the weights, different at every step."""
    from roadmap import build

    torch.manual_seed(step + 1000 * other)
    weights = build("separate_downsampling", regime="micro", num_classes=10).state_dict()
    tensors = {f"model.{name}": tensor for name, tensor in weights.items()}
    tensors |= {f"ema.{name}": tensor * 0.9 for name, tensor in weights.items()}
    tensors |= {f"optimizer.{name}.exp_avg": torch.randn_like(tensor) for name, tensor in weights.items()}
    tensors |= {f"optimizer.{name}.step": torch.tensor(float(step)) for name in weights}
    return tensors


def _flip(data: bytearray, random_: random.Random) -> None:
    for _ in range(random_.choice((1, 1, 1, 2, 8))):
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)


def _cut(data: bytearray, random_: random.Random) -> None:
    del data[random_.randrange(len(data)) :]


def _page(data: bytearray, random_: random.Random) -> slice:
    start = random_.randrange(0, len(data), PAGE)
    return slice(start, min(start + PAGE, len(data)))


def _zero(data: bytearray, random_: random.Random) -> None:
    page = _page(data, random_)
    data[page] = bytes(page.stop - page.start)


def _exchange(data: bytearray, random_: random.Random) -> None:
    first, second = _page(data, random_), _page(data, random_)
    if first.stop - first.start == second.stop - second.start:
        data[first], data[second] = data[second], data[first]


def _grow(data: bytearray, random_: random.Random) -> None:
    data += random_.randbytes(random_.choice((1, 8, PAGE)))


def _garbage(data: bytearray, random_: random.Random) -> None:
    page = _page(data, random_)
    data[page] = random_.randbytes(page.stop - page.start)


BYTE_DAMAGES: dict[str, Callable[[bytearray, random.Random], None]] = {
    "bit flip": _flip,
    "cut": _cut,
    "zeroed page": _zero,
    "exchanged pages": _exchange,
    "longer file": _grow,
    "overwritten page": _garbage,
}


def swapped(tensors: dict[str, torch.Tensor], random_: random.Random) -> dict[str, torch.Tensor]:
    """The same names with two different tensors of one shape exchanged."""
    while True:
        first, second = random_.sample(sorted(tensors), 2)
        one, two = tensors[first], tensors[second]
        if one.shape == two.shape and one.dtype == two.dtype and not torch.equal(one, two):
            return tensors | {first: two, second: one}


def damaged_bytes(content: bytes, kind: str, random_: random.Random) -> bytes:
    """`content` with one damage that changes it."""
    while True:
        data = bytearray(content)
        BYTE_DAMAGES[kind](data, random_)
        if data != content:
            return bytes(data)


def _swap(newest: Path, older: Path, foreign: Path, random_: random.Random) -> None:
    from experiments.store.tensor_file import pieces_of

    (newest / STATE).write_bytes(b"".join(pieces_of(swapped(state_of(NEWEST), random_))))


def _foreign(newest: Path, older: Path, foreign: Path, random_: random.Random) -> None:
    """Files of another run: one of them, both, or the whole folder under its own valid name."""
    choice = random_.randrange(4)
    for name in ((STATE,), (MANIFEST,), (STATE, MANIFEST), (STATE, MANIFEST))[choice]:
        (newest / name).write_bytes((foreign / name).read_bytes())
    if choice == 3:
        newest.rename(newest.with_name(foreign.name))


def _stale(newest: Path, older: Path, foreign: Path, random_: random.Random) -> None:
    """Files of the older generation under the newest name."""
    for name in random_.choice(((STATE,), (MANIFEST,), (STATE, MANIFEST))):
        (newest / name).write_bytes((older / name).read_bytes())


def _missing(newest: Path, older: Path, foreign: Path, random_: random.Random) -> None:
    (newest / random_.choice((STATE, MANIFEST))).unlink()


def _renamed(newest: Path, older: Path, foreign: Path, random_: random.Random) -> None:
    """A folder name that promises more steps than were trained."""
    newest.rename(newest.with_name(newest.name.replace("00000020", f"{random_.randrange(21, 99_999_999):08d}")))


FILE_DAMAGES: dict[str, Callable[[Path, Path, Path, random.Random], None]] = {
    "swapped tensors": _swap,
    "another run's files": _foreign,
    "stale files": _stale,
    "missing file": _missing,
    "renamed": _renamed,
}
KINDS = (*BYTE_DAMAGES, *FILE_DAMAGES)
WEIGHTS = (6, 3, 3, 2, 1, 2, 2, 2, 2, 1, 1)


def damage(newest: Path, older: Path, foreign: Path, kind: str, random_: random.Random) -> None:
    """Damage the checkpoint in the folder `newest`."""
    if kind in FILE_DAMAGES:
        FILE_DAMAGES[kind](newest, older, foreign, random_)
        return
    file = newest / random_.choice((STATE, STATE, MANIFEST))
    file.write_bytes(damaged_bytes(file.read_bytes(), kind, random_))


def same(found: dict[str, torch.Tensor], step: int) -> bool:
    """Whether `found` is exactly the state of `step`."""
    expected = state_of(step)
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def trial(index: int, seed: int, template: Path) -> tuple[str, str | None]:
    """One damaged checkpoint: its kind, and what went wrong (None: found, reported, the older one loaded)."""
    logging.disable(logging.WARNING)
    random_ = random.Random(f"damage {seed} {index}")
    (kind,) = random_.choices(KINDS, WEIGHTS)
    both = random_.random() < 0.1
    with tempfile.TemporaryDirectory(prefix="damage-") as name:
        folder = Path(name)
        shutil.copytree(template, folder, dirs_exist_ok=True)
        foreign, (older, newest) = _folders(folder / "foreign")[0], _folders(folder)
        damage(newest, older, foreign, kind, random_)
        if both:
            damage(older, newest if newest.exists() else foreign, foreign, "bit flip", random_)
        try:
            loaded = Checkpoints(folder, RUN).load()
        except Exception as error:
            return kind, f"{kind}: load raised {type(error).__name__}: {error}"
    if both:
        return kind, None if loaded is None else f"{kind}: loaded a checkpoint although both were damaged"
    if loaded is None or loaded.step != OLDER or not same(loaded.tensors, OLDER):
        return kind, f"{kind}: {'nothing' if loaded is None else f'step {loaded.step}'} was loaded instead of the older"
    if len(loaded.skipped) != 1 or "\n" in loaded.skipped[0]:
        return kind, f"{kind}: reported as {loaded.skipped}"
    return kind, None


def _folders(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "checkpoints").glob("step-*"))


def contrast(index: int, seed: int, content: bytes, older: bytes, foreign: bytes) -> str:
    """What torch.load makes of the same damages: refused, silently wrong, or unharmed (the damage hit padding)."""
    random_ = random.Random(f"damage {seed} {index}")
    (kind,) = random_.choices(KINDS, WEIGHTS)
    if kind in BYTE_DAMAGES:
        data = damaged_bytes(content, kind, random_)
    elif kind == "swapped tensors":
        data = _pickled(swapped(state_of(NEWEST), random_))
    else:
        data = {"another run's files": foreign, "stale files": older, "renamed": content}.get(kind, b"")
    try:
        found = torch.load(io.BytesIO(data), weights_only=True)
        return "unharmed" if same(found, NEWEST) else "silently wrong"
    except Exception:
        return "refused"


def _pickled(tensors: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def run(count: int, seed: int = 0, jobs: int = 2) -> dict[str, Any]:
    """`count` damaged checkpoints through our loader, and the same damages through torch.load."""
    with tempfile.TemporaryDirectory(prefix="damage-") as name:
        template = Path(name)
        for folder, run_id in ((template, RUN), (template / "foreign", OTHER_RUN)):
            folder.mkdir(exist_ok=True)
            store = Checkpoints(folder, run_id, background=False)
            for step in (OLDER, NEWEST):
                store.save(step, state_of(step, other=run_id == OTHER_RUN), {"epoch": step})
        atomic.remove(template / "foreign" / "checkpoints" / _folders(template / "foreign")[0].name)
        results = fleet.every(partial(trial, seed=seed, template=template), count, jobs, "damage")
    pickles = [_pickled(state_of(NEWEST)), _pickled(state_of(OLDER)), _pickled(state_of(NEWEST, other=True))]
    theirs = partial(contrast, seed=seed, content=pickles[0], older=pickles[1], foreign=pickles[2])
    verdicts = Counter(fleet.every(theirs, count, jobs, "the same through torch.load"))
    failures = [problem for _, problem in results if problem]
    return {
        "passed": len(results) - len(failures),
        "total": len(results),
        "what": "damaged checkpoints found before loading, the older one used and said so",
        "kinds": dict(Counter(kind for kind, _ in results)),
        "contrast": {f"torch.load: {verdict}": number for verdict, number in sorted(verdicts.items())},
        "failures": fleet.listed(failures),
    }
