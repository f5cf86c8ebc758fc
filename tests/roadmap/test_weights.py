"""Trained networks from disk: `roadmap.load`, what lies beside weights, what is refused."""

import json
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

import roadmap.timm_models  # noqa: F401  (registers the models)
from roadmap import DesignError, WeightsError, build, load
from roadmap.pretrained import Pretrained

pytestmark = pytest.mark.numeric
NAMES = ("cat", "dog", "eel")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build("kernel_7", regime="micro", num_classes=3, layer_scale=0.5).eval()


@pytest.fixture
def folder(network, tmp_path) -> Path:
    """What a run, or an export for the Hub, leaves of a network."""
    described = Pretrained(
        network.design,
        num_classes=3,
        image_size=48,
        mean=(0.1, 0.2, 0.3),
        label_names=NAMES,
        about={"regime": "micro", "step": "kernel_7", "run_id": "ab"},
    )
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(described.config()))
    return tmp_path


def same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(one(x), other(x), rtol=0, atol=0)


def test_a_folder_and_a_file_in_it(network, folder) -> None:
    for source in (folder, str(folder), folder / "model.safetensors"):
        loaded = load(source)
        assert not loaded.training
        same(loaded, network)
    assert loaded.pretrained_cfg["label_names"] == NAMES


def test_plain_timm_reads_the_same_folder(network, folder) -> None:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    same(model, network)
    assert model.design == network.design
    assert model.pretrained_cfg["label_names"] == list(NAMES)
    assert timm.data.resolve_model_data_config(model)["mean"] == [0.1, 0.2, 0.3]
    assert timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=7).num_classes == 7


def test_the_weights_file_as_an_overlay(network, folder) -> None:
    overlay = {"file": str(folder / "model.safetensors"), "num_classes": 3}
    model = timm.create_model(
        "roadmap_micro_kernel_7", pretrained=True, layer_scale=0.5, num_classes=3, pretrained_cfg_overlay=overlay
    )
    same(model.eval(), network)


def test_what_timm_saves_of_our_models_is_loaded(network, tmp_path) -> None:
    model = timm.create_model("roadmap_micro_gelu", num_classes=3, stem_stride=2, layer_scale=0.1)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    loaded = load(tmp_path)
    assert loaded.design == model.design
    same(loaded, model.eval())


def test_a_step_that_the_package_does_not_have_is_described_by_its_flags(network, folder) -> None:
    described = Pretrained(network.design, 3, about={"regime": "my_own", "step": "of_mine"})
    (folder / "config.json").write_text(json.dumps(described.config()))
    assert described.config()["architecture"] == "roadmap_tiny_resnet50"
    same(timm.create_model(f"local-dir:{folder}", pretrained=True).eval(), network)


def test_an_older_run_is_described_by_its_configuration(network, folder) -> None:
    from dataclasses import asdict

    design = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(network.design).items()}
    del design["grn"]  # younger than some runs
    data = {"name": "mine", "classes": None, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}
    run = {"design": design, "data": data, "image_size": 64, "regime": "micro"}
    run["recipe"] = {"name": "enhanced", "eval_crop": 0.9, "interpolation": "bilinear"}
    (folder / "config.json").unlink()
    (folder / "config.yaml").write_text(yaml.safe_dump(run))
    (folder / "model.safetensors").rename(folder / "last.safetensors")
    loaded = load(folder)
    same(loaded, network)
    assert loaded.pretrained_cfg["input_size"] == [3, 64, 64]


def test_other_classes_and_channels(network, folder) -> None:
    fresh = load(folder, num_classes=5)
    assert fresh(torch.randn(1, 3, 32, 32)).shape == (1, 5)
    assert fresh.pretrained_cfg is None  # its classifier is not trained
    torch.testing.assert_close(fresh.stem.conv.weight, network.stem.conv.weight)
    grey = load(folder, in_chans=1)
    torch.testing.assert_close(grey.stem.conv.weight, network.stem.conv.weight.sum(1, keepdim=True))
    assert load(folder, num_classes=0)(torch.randn(1, 3, 32, 32)).shape == (1, network.num_features)


def test_the_averaged_weights(network, folder) -> None:
    with pytest.raises(WeightsError, match=r"holds no ema.safetensors: its run had no recipe.ema"):
        load(folder, weights="ema")
    doubled = {name: 2 * value if value.is_floating_point() else value for name, value in network.state_dict().items()}
    save_file(doubled, folder / "ema.safetensors")
    torch.testing.assert_close(load(folder, weights="ema").stem.conv.weight, 2 * network.stem.conv.weight)
    with pytest.raises(WeightsError, match=r"weights='best' is not one of: last, ema"):
        load(folder, weights="best")


@pytest.mark.parametrize(
    "name, step, channels", [("resnet50", "resnet50", 3), ("convnext_tiny", "separate_downsampling", 1)]
)
def test_a_state_dict_in_memory(name, step, channels) -> None:
    theirs = timm.create_model(name, num_classes=7, in_chans=channels).eval()
    with pytest.raises(WeightsError, match="nothing says which network a state dict is of: add step=NAME"):
        load(theirs.state_dict())
    ours = load(theirs.state_dict(), step=step)
    x = torch.randn(1, channels, 64, 64)
    assert ours.num_classes == 7
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_weights_of_a_network_with_another_flag_are_refused_by_its_name(network, folder) -> None:
    told = "the weights hold stages.0.blocks.0.gamma, .* and .* more: the network must be built with layer_scale=1e-6"
    with pytest.raises(WeightsError, match=told):
        build("kernel_7", regime="micro", num_classes=3).load_state_dict(network.state_dict())
    with pytest.raises(WeightsError, match=told):
        load(folder, layer_scale=None)
    with pytest.raises(WeightsError, match=r"the weights lack stages.*gamma.*must be built with layer_scale=None"):
        network.load_state_dict(build("kernel_7", regime="micro", num_classes=3).state_dict())
    with pytest.raises(WeightsError, match=r"of another network: they differ in shape: stages.0.*spatial.conv.weight"):
        load(folder, kernel_size=5)
    with pytest.raises(DesignError, match="unknown design flag 'colour'"):
        load(folder, colour=1)


@pytest.mark.parametrize(
    "name, content, problem",
    [
        ("w.pth", b"\x80", r"w.pth is a pickle, which can run code.*weights_only=True.* w.pth w.safetensors"),
        ("w.safetensors", b"rubbish", r"w.safetensors is not a safetensors file"),
        ("config.json", b"{}", r"config.json describes no network of a roadmap: lacks 'architecture'"),
        ("config.json", b'{"architecture": "resnet50", "num_classes": 3}', "describes no network of a roadmap"),
        ("config.json", b"[1", "describes no network of a roadmap"),
    ],
)
def test_files_that_are_no_networks(name, content, problem, folder) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(WeightsError, match=problem) as caught:
        load(folder if name == "config.json" else folder / name)
    assert "\n" not in str(caught.value)


def test_places_without_weights(tmp_path) -> None:
    with pytest.raises(WeightsError, match="a run has them once it is finished"):
        load(tmp_path)
    with pytest.raises(WeightsError, match=r"nowhere does not exist: it must be a run's folder"):
        load("nowhere")
    with pytest.raises(WeightsError, match="timm:resnet99: timm knows no weights of that name"):
        load("timm:resnet99", step="resnet50")


def test_the_hub_is_asked_and_answers_in_one_line(network, folder, monkeypatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(folder))
    same(load("hf-hub:me/mine"), network)

    def unreachable(*_: object, **__: object) -> str:
        raise OSError("We couldn't connect\nto the server")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(WeightsError, match=r"^timm:resnet50.tv_in1k cannot be downloaded \(We couldn't connect\)$"):
        load("timm:resnet50.tv_in1k", step="resnet50")


def test_the_evaluation_transform(folder) -> None:
    from PIL import Image

    image = Image.new("RGB", (100, 60), (255, 0, 0))
    shown = load(folder).eval_transform()(image)
    assert shown.shape == (3, 48, 48)
    torch.testing.assert_close(shown[:, 0, 0], torch.tensor([0.9 / 0.229, -0.2 / 0.224, -0.3 / 0.225]))
    grey = load(folder, in_chans=1)
    assert grey.eval_transform()(image).shape[0] == 3  # nothing is known of it: ImageNet's
