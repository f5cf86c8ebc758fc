"""`python -m experiments evaluate|predict|export|push`: what is done with a trained network."""

import contextlib
import csv
import io
import json
import shutil
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx.reference
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from experiments.__main__ import main
from experiments.commands.evaluate import columns_of
from experiments.data.from_files import FileSource
from experiments.errors import ConfigError, InterruptedRun
from experiments.strict_json import dump
from experiments.training import run as engine
from roadmap import load
from roadmap.hub import HubNet
from roadmap.seals import SealError, digest_of
from tests.experiments.training.runs import BN, LN, ROOT, environment, only_run, result, settings_of, stopping

pytestmark = pytest.mark.numeric
CLASSES = ("cat", "dog", "eel")
COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])


def paint(folder: Path, names: tuple[str, ...], count: int, seed: int = 0) -> None:
    """Noise around one colour per class."""
    draw = np.random.default_rng(seed)
    for index, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for image in range(count):
            pixels = COLOURS[index % 3] + draw.integers(-40, 40, (40, 44, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{image}.png")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    paint(folder / "train", CLASSES, 16)
    paint(folder / "val", CLASSES, 5, seed=1)
    return folder


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on three classes of images in folders."""
    folder = tmp_path_factory.mktemp("runs")
    own = ("data=imagefolder", f"data.root={images}", "image_size=32", "recipe.epochs=4", "recipe.ema=0.5")
    plain = ("recipe.mixup=0", "recipe.cutmix=0", "recipe.randaugment=null", "recipe.erasing=0", "recipe.layer_scale=1")
    small = ("data.train_images=null", "data.eval_images=null", "recipe.lr=5e-3")
    engine.run(settings_of(folder, *own, *plain, *small, step=LN))
    return only_run(folder)


def call(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def outputs(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32))


# ---- evaluate


def test_evaluate_repeats_a_runs_scores(trained: Path, images: Path) -> None:
    record = result(trained)
    here = ("--root", images, "--device=cpu", "--workers=0")
    said = f"top1 {record['top1']:.2f}  top5 100.00  loss {record['loss']:.4f}  15 images\n"
    assert call("evaluate", trained, *here) == (0, said, "")
    assert call("evaluate", trained / "last.safetensors", *here)[1] == said
    code, averaged, _ = call("evaluate", trained, "--weights=ema", *here)
    assert (code, averaged.split()[1]) == (0, f"{record['top1_ema']:.2f}")


@pytest.fixture
def changed(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run whose files a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / trained.name, symlinks=True))


def flip(path: Path, place: int = -100) -> None:
    """Turn over one bit."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("command", ["evaluate", "predict", "export", "push"])
@pytest.mark.parametrize("name", ["last.safetensors", "config.json", "result.json"])
def test_a_changed_final_file_is_refused(command: str, name: str, changed: Path, images: Path, tmp_path: Path) -> None:
    more = {
        "evaluate": ("--root", images, "--device=cpu"),
        "predict": (images / "val",),
        "export": ("--format=hub", "--out", tmp_path / "out"),
        "push": ("me/mine",),
    }
    flip(changed / name)
    code, said, told = call(command, changed, *more[command])
    assert (code, said, told.count("\n")) == (5, "", 1)
    assert told.startswith(f"error: {changed / name}: ")


@pytest.mark.parametrize("weights", ["last", "ema"])
def test_another_runs_weights_are_refused(weights: str, changed: Path) -> None:
    path = changed / f"{weights}.safetensors"
    other = "ema" if weights == "last" else "last"
    path.write_bytes((changed / f"{other}.safetensors").read_bytes())
    with pytest.raises(SealError, match=f"{weights}.safetensors: is not what result.json sealed"):
        load(changed, weights=weights)
    with pytest.raises(SealError):
        load(path)
    load(changed, weights=other)


def test_what_was_not_there_when_the_run_was_sealed_is_not_the_runs(changed: Path) -> None:
    record = json.loads((changed / "result.json").read_text())
    del record["digest"], record["seals"]["ema"]
    text = dump(record, indent=1)
    (changed / "result.json").write_bytes(dump(record | {"digest": digest_of(text)}, indent=1))
    with pytest.raises(SealError, match="was not there when"):
        load(changed, weights="ema")


def test_an_edited_config_is_refused_where_it_is_read(changed: Path, images: Path) -> None:
    path = changed / "config.yaml"
    path.write_text(path.read_text().replace("interpolation: bicubic", "interpolation: bilinear"))
    load(changed)  # which reads config.json
    code, _, told = call("evaluate", changed, "--root", images, "--device=cpu")
    assert (code, told) == (5, f"error: {path}: is not what result.json sealed: its SHA-256 differs\n")


def test_an_unsealed_run_is_evaluated(changed: Path, images: Path) -> None:
    """A record from before there were seals."""
    record = json.loads((changed / "result.json").read_text())
    (changed / "result.json").write_text(json.dumps({k: v for k, v in record.items() if k not in ("seals", "digest")}))
    flip(changed / "last.safetensors")
    assert call("evaluate", changed, "--root", images, "--device=cpu", "--workers=0")[0] == 0


def test_a_finished_runs_own_folder_takes_no_export(trained: Path) -> None:
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    for arguments in (("hub", trained), ("safetensors", trained / "more.safetensors")):
        code, _, told = call("export", trained, f"--format={arguments[0]}", "--out", arguments[1])
        assert (code, told.count("\n")) == (2, 1)
    assert {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("inside", ["val", "."])
def test_class_folders_without_a_training_part(trained: Path, images: Path, tmp_path: Path, inside: str) -> None:
    """As ImageNet-A and -R: some of the classes, in folders of their own."""
    (tmp_path / inside).mkdir(exist_ok=True)
    for name in ("dog", "eel"):
        (tmp_path / inside / name).symlink_to(images / "val" / name)
    code, said, _ = call("evaluate", trained, "--root", tmp_path, "--device=cpu", "--workers=0")
    assert (code, said.split()[-2:]) == (0, ["10", "images"])
    (tmp_path / inside / "fox").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / inside / "fox" / "0.png")
    code, _, told = call("evaluate", trained, "--root", tmp_path, "--device=cpu", "--workers=0")
    assert (code, told) == (2, "error: --data, --root: 1 of 3 classes are not among the network's 3: fox\n")


def test_which_outputs_a_data_set_is_about() -> None:
    known = ("ant", "bee", "cow")
    assert columns_of(known, 3, known) is None
    assert columns_of(known, 3, ("cow", "ant")) == [2, 0]
    assert columns_of((), 1000, ("0", "2", "11")) == [0, 2, 11]  # ImageNet-V2's folders
    assert columns_of((), 3, ("x", "y", "z")) is None  # as many: nothing says otherwise
    with pytest.raises(ConfigError, match="2 of 2 classes are not among the network's 3: fly, gnu"):
        columns_of(known, 3, ("fly", "gnu"))


def test_real_labels(trained: Path, images: Path, tmp_path: Path) -> None:
    """An image counts as right with any of its labels, and not at all without one."""
    root = tmp_path / "val"
    for index, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(3):
            picture = images / "val" / name / f"{number}.png"
            (root / name / f"{number * 3 + (2 - index)}.png").symlink_to(picture)  # by name: eel, dog, cat, eel, ...
    of_name = [2, 1, 0] * 3
    scored = call("evaluate", trained, "--root", tmp_path, "--device=cpu", "--workers=0")[1].split()[1]
    (tmp_path / "real.json").write_text(json.dumps([[label] for label in of_name]))
    asked = ("evaluate", trained, "--root", tmp_path, "--device=cpu", "--workers=0", "--real", tmp_path / "real.json")
    assert call(*asked)[1] == f"ReaL top1 {scored}  9 images\n"
    (tmp_path / "real.json").write_text(json.dumps([[0, 1, 2]] * 8 + [[]]))
    assert call(*asked)[1] == "ReaL top1 100.00  8 images\n"
    (tmp_path / "real.json").write_text("[[1]]")
    assert call(*asked)[::2] == (3, f"error: --real={tmp_path / 'real.json'} must list the labels of all 9 images\n")


def test_unreadable_images_are_said_and_never_scored_with_anothers_labels(
    trained: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "val"
    shutil.copytree(images / "val", root)
    for label, name in enumerate(CLASSES):  # file names that give ReaL's order
        for path in sorted((root / name).iterdir()):
            path.rename(path.with_name(f"{label}{path.name}"))
    (root / "cat" / "00.png").write_bytes(b"")
    here = ("--root", tmp_path, "--device=cpu", "--workers=0")
    code, _, told = call("evaluate", trained, *here)
    assert code == 3 and told.startswith("error: 1 of 15 images are unreadable") and told.count("\n") == 1
    monkeypatch.setattr(FileSource, "_refuse_too_many", lambda *_: None)
    said = call("evaluate", trained, *here)[1]
    assert said.endswith("15 images, 1 of them unreadable and replaced by others of their class\n")
    (tmp_path / "real.json").write_text(json.dumps([[0, 1, 2]] + [[3]] * 14))
    said = call("evaluate", trained, *here, "--real", tmp_path / "real.json")[1]
    assert said == "ReaL top1 0.00  14 images, unreadable and left out: 1\n"


def test_weights_of_torchvision(tmp_path: Path) -> None:
    from torchvision.models.resnet import Bottleneck, ResNet

    torch.manual_seed(0)
    save_file(ResNet(Bottleneck, [3, 4, 6, 3], num_classes=10).state_dict(), tmp_path / "theirs.safetensors")
    options = ("evaluate", tmp_path / "theirs.safetensors", "--data=digits", "--device=cpu", "--workers=0")
    code, said, _ = call(*options, "--step=resnet50")
    assert (code, said.split()[0], said.split()[-2:]) == (0, "top1", ["360", "images"])
    for wrong, words in {("--step=separate_downsampling",): "missing", (): "add step=NAME"}.items():
        code, _, told = call(*options, *wrong)
        assert (code, told.count("\n")) == (2, 1)
        assert words in told


def test_an_unfinished_run_has_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stopping(monkeypatch, 2), pytest.raises(InterruptedRun):
        engine.run(settings_of(tmp_path))
    for command in (["evaluate"], ["predict", str(ROOT / "docs")], ["export", "--format=hub", f"--out={tmp_path}/x"]):
        code, _, told = call(command[0], only_run(tmp_path), *command[1:])
        assert (code, told.count("\n")) == (2, 1)
        assert "a run has them once it is finished" in told


# ---- predict


def test_predictions_have_names_and_add_up_to_what_evaluate_says(trained: Path, images: Path, tmp_path: Path) -> None:
    code, said, _ = call(
        "predict", trained, images / "val", "--csv", tmp_path / "table.csv", "--device=cpu", "--batch=4"
    )
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert code == 0 and len(said.splitlines()) == 15 and len(rows) == 45
    first = [row for row in rows if row["rank"] == "1"]
    right = [Path(row["image"]).parent.name == row["class"] for row in first]
    assert 100 * sum(right) / len(right) == pytest.approx(result(trained)["top1"])
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(15)
    assert said.splitlines()[0].startswith(
        f"{first[0]['image']}  {first[0]['class']} {float(first[0]['probability']):.3f}"
    )


def test_files_that_are_no_images_are_named_and_left_out(trained: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    good = images / "val" / "cat" / "0.png"
    code, said, told = call("predict", trained, tmp_path / "broken.png", good, "--top=1", "--device=cpu")
    assert code == 3
    assert told.startswith(f"{tmp_path / 'broken.png'}: not one of JPEG") and said.startswith(f"{good}  ")
    (tmp_path / "empty").mkdir()
    for place, words in ((tmp_path / "gone.png", "does not exist"), (tmp_path / "empty", "holds no images")):
        code, _, told = call("predict", trained, place, "--device=cpu")
        assert (code, told.count("\n")) == (3, 1) and words in told


# ---- export


@pytest.fixture(scope="module")
def hub(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "network"
    assert call("export", trained, "--format=hub", "--out", folder)[0] == 0
    return folder


PLAIN_TIMM = """
import sys, timm, torch, roadmap.timm_models
model = timm.create_model(f"local-dir:{sys.argv[1]}", pretrained=True).eval()
assert not [name for name in sys.modules if name.split(".")[0] in ("experiments", "analysis", "hydra")]
with torch.no_grad():
    torch.save(model(torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)), sys.argv[2])
print(model.pretrained_cfg["label_names"])
"""


def test_the_hubs_folder_by_plain_timm_in_another_process(trained: Path, hub: Path, tmp_path: Path) -> None:
    for place in (hub, trained):
        words = [sys.executable, "-c", PLAIN_TIMM, str(place), str(tmp_path / "out")]
        done = subprocess.run(words, capture_output=True, text=True, env=environment(), cwd=tmp_path, check=True)
        assert done.stdout == "['cat', 'dog', 'eel']\n"
        found = torch.load(tmp_path / "out", weights_only=True)
        torch.testing.assert_close(found, outputs(load(trained)), rtol=0, atol=1e-6)


def test_the_hubs_folder_by_its_own_mixin_and_by_ours(trained: Path, hub: Path, tmp_path: Path) -> None:
    wanted = outputs(load(trained))
    for model in (HubNet.from_pretrained(str(hub)), HubNet.from_pretrained(str(trained)), load(hub)):
        torch.testing.assert_close(outputs(model), wanted, rtol=0, atol=0)
    HubNet.from_pretrained(str(hub)).save_pretrained(tmp_path)
    torch.testing.assert_close(outputs(load(tmp_path)), wanted, rtol=0, atol=0)


def test_the_model_card_says_what_it_is(trained: Path, hub: Path) -> None:
    card, record = (hub / "README.md").read_text(), result(trained)
    assert card.startswith("---\nlibrary_name: timm\n")
    for words in (
        *("# separate_downsampling (micro)", "| data | imagefolder |", f"top-1 {record['top1']:.2f} %, top-5 100.00 %"),
        *("(n = 15 images)", record["run_id"], "python run.py +step=separate_downsampling", "layer_norm", "licence"),
    ):
        assert words in card
    assert not [line for line in card.splitlines() if str(trained.parent) in line]


def test_averaged_weights_and_bare_ones_are_exported(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "weights.safetensors"
    assert call("export", trained, "--weights=ema", "--format=safetensors", "--out", out)[0] == 0
    torch.testing.assert_close(load_file(out), load_file(trained / "ema.safetensors"))
    torch.testing.assert_close(outputs(load(out)), outputs(load(trained, weights="ema")), rtol=0, atol=0)


@pytest.mark.parametrize("step", [BN, LN])
def test_graphs_for_other_programs_compute_the_same(trained: Path, tmp_path: Path, step: str) -> None:
    source: object = trained
    options: tuple[str, ...] = ()
    if step == BN:
        theirs = timm.create_model("resnet50", num_classes=3)
        save_file(theirs.state_dict(), tmp_path / "bn.safetensors")
        source, options = tmp_path / "bn.safetensors", ("--step=resnet50",)
    wanted = outputs(load(source, step="resnet50" if options else None))
    images = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    if step == LN:
        assert call("export", source, *options, "--format=torch-export", "--out", tmp_path / "n.pt2")[0] == 0
        program = torch.export.load(tmp_path / "n.pt2").module()
        torch.testing.assert_close(program(images), wanted, rtol=1e-4, atol=1e-5)
        assert program(torch.cat([images] * 3)).shape == (6, 3)  # any batch
        assert call("export", source, *options, "--format=onnx", "--out", tmp_path / "n.onnx")[0] == 0
        session = onnx.reference.ReferenceEvaluator(str(tmp_path / "n.onnx"))
        (found,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-4)
    else:
        assert call("export", source, *options, "--format=hub", "--out", tmp_path / "hub")[0] == 0
        torch.testing.assert_close(outputs(load(tmp_path / "hub")), wanted, rtol=0, atol=0)


# ---- push


@contextlib.contextmanager
def fake_hub(status: int = 200) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A server that takes what the Hub's library sends for a small upload, and keeps it."""
    asked: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.path, body))
            address = f"http://{self.headers['Host']}"
            answer: dict[str, Any] = {"url": f"{address}/me/mine", "id": "me/mine"}
            if "preupload" in self.path:
                files = json.loads(body)["files"]
                answer = {"files": [{**f, "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            elif "/commit/" in self.path:
                answer = {"success": True, "commitOid": "0" * 40, "commitUrl": f"{address}/me/mine/commit/0"}
            elif "validate" in self.path:
                answer = {"errors": [], "warnings": []}
            self.answer(answer)

        def do_GET(self) -> None:
            self.answer({"id": "me/mine", "modelId": "me/mine", "sha": "0" * 40, "siblings": [], "tags": []})

        def answer(self, content: dict[str, Any]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def push(source: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "experiments", "push", str(source), "me/mine", "--message", "first"]
    own = environment(HF_ENDPOINT=endpoint, HF_TOKEN="hf_secretsecret", HF_HUB_DISABLE_PROGRESS_BARS="1")
    return subprocess.run(words, capture_output=True, text=True, env=own, cwd=ROOT, timeout=200)


def test_a_network_is_pushed(trained: Path) -> None:
    with fake_hub() as (endpoint, asked):
        done = push(trained, endpoint)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{endpoint}/me/mine/commit/0\n"
    (body,) = (body for path, body in asked if "/commit/" in path)
    lines = [json.loads(line)["value"] for line in body.splitlines()]
    assert lines[0]["summary"] == "first"
    files = {line["path"]: b64decode(line["content"]) for line in lines[1:]}
    assert set(files) == {"model.safetensors", "config.json", "README.md"}
    assert files["model.safetensors"] == (trained / "last.safetensors").read_bytes()
    assert b'"hf-hub:me/mine"' in files["README.md"]
    assert "secret" not in done.stdout + done.stderr


def test_a_push_that_is_refused_is_one_line_without_the_token(trained: Path) -> None:
    with fake_hub(status=401) as (endpoint, _):
        done = push(trained, endpoint)
    assert done.returncode == 2
    assert done.stderr == (
        "error: push me/mine: the Hub does not accept the token: log in with `hf auth login`, or set HF_TOKEN\n"
    )
