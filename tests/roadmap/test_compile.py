"""torch.compile, torch.export and ONNX take every step as it is."""

import io

import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from roadmap import STEPS, build, design_for
from roadmap.layers import DropPath
from tests.roadmap.designs import OTHERS

pytestmark = pytest.mark.numeric

STEP_NAMES = [step.name for step in STEPS if step.name != "enhanced_recipe"]  # resnet50's network
ALL_NAMES = [*STEP_NAMES, *OTHERS]
REPRESENTATIVE = ("resnet50", "kernel_7", "separate_downsampling", *OTHERS)


def network(name: str) -> nn.Module:
    """A step with two blocks where its first and its later blocks differ, and every kind of layer."""
    torch.manual_seed(0)
    design = OTHERS[name] if name in OTHERS else design_for(name, "micro", depths=(1, 1, 2, 1), width=8)
    return build(design, num_classes=5, layer_scale=0.5, drop_path=0.1)


def images(count: int = 2, size: tuple[int, int] = (40, 32)) -> Tensor:
    """A height that the patchify stem divides and the later stages do not."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ALL_NAMES)
def test_compiles_as_one_graph(name) -> None:
    model = network(name)
    compiled = torch.compile(model.eval(), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()), model(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_compiled_training_gives_the_same_gradients(name) -> None:
    model = network(name)
    for module in model.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0  # its noise differs between compiled and plain code
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    gradients = []
    for run in (model, compiled):
        model.zero_grad()
        run(images(4)).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_exports_with_any_batch_size(name) -> None:
    model = network(name).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (images(),), dynamic_shapes={"x": {0: batch}})
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images(3)), model(images(3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_onnx_gives_the_same_outputs(name) -> None:
    model, buffer = network(name).eval(), io.BytesIO()
    torch.onnx.export(model, (images(),), dynamo=True, verbose=False).save(buffer)
    exported = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(exported)
    (output,) = ReferenceEvaluator(exported).run(None, {exported.graph.input[0].name: images().numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(output), model(images()), rtol=1e-3, atol=1e-4)
