"""Products by oneDNN equal torch's own, in values, gradients and in what others see of a network."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from roadmap import build, complexity_of, products
from roadmap.products import product, product_is_faster

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product on a CPU goes to oneDNN, of whatever size and on whatever processor."""
    monkeypatch.setattr(products, "SMALLEST", 0)
    monkeypatch.setattr(products, "_mkl_holds_back", lambda: True)


def tensors(bias: bool = True) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(2, 5, 7, 12), (20, 12), (20,) if bias else None]
    return [size and torch.randn(size, generator=generator).requires_grad_() for size in sizes]


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_of_both_orders_are_those_of_a_linear_layer(bias: bool) -> None:
    found = []
    for linear in (product, F.linear):
        x, weight, offset = tensors(bias)
        out = linear(x, weight, offset)
        wanted = [tensor for tensor in (x, weight, offset) if tensor is not None]
        first = torch.autograd.grad(out.sin().sum(), wanted, create_graph=True)
        second = torch.autograd.grad(sum(grad.square().sum() for grad in first), wanted)
        found.append([out, *first, *second])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_only_the_gradients_that_are_asked_for_are_computed() -> None:
    x, weight, bias = tensors()
    assert x is not None and weight is not None and bias is not None
    product(x.detach(), weight, bias.detach()).sum().backward()
    assert x.grad is None and bias.grad is None and weight.grad is not None


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("step", ["resnet50", "kernel_7", "separate_downsampling"])
def test_networks_compute_the_same(step: str) -> None:
    torch.manual_seed(0)
    plain = build(step, regime="micro", num_classes=4).train()
    fast = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 40, 32)
    for network, view in ((plain, images), (fast, images.to(memory_format=torch.channels_last))):
        network(view).square().sum().backward()
    for (name, one), same in zip(plain.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(one.grad, same.grad, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: name + text)


@pytest.mark.usefixtures("always")
def test_whoever_watches_sees_the_usual_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build("separate_downsampling", regime="micro", num_classes=10).eval()
    network = network.to(memory_format=torch.channels_last)
    images = torch.randn(1, 3, 64, 64).to(memory_format=torch.channels_last)
    expected = network(images)
    monkeypatch.setattr(products, "product", None)
    monkeypatch.setattr("roadmap.layers.product", None)  # from here on a call would fail
    with FlopCounterMode(display=False) as counter:
        network(images)
    macs = complexity_of("separate_downsampling", regime="micro", image_size=64, num_classes=10).macs
    assert counter.get_total_flops() == 2 * macs
    torch.testing.assert_close(torch.jit.trace(network, images, check_trace=False)(images), expected)
    torch.testing.assert_close(torch.export.export(network, (images,)).module()(images), expected)
    torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(images), expected)
    with torch.autocast("cpu", torch.bfloat16):
        network(images)


@pytest.mark.usefixtures("always")
def test_gradients_by_function_transforms() -> None:
    x, weight, bias = tensors()

    def loss(linear, weight: Tensor) -> Tensor:
        return linear(x, weight, bias).sin().sum()

    found = [torch.func.grad(lambda w, linear=linear: loss(linear, w))(weight) for linear in (product, F.linear)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("always")
def test_it_is_for_fp32_on_a_cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert product_is_faster(torch.zeros(1, 8, 2, 2), 8)
    assert not product_is_faster(torch.zeros(1, 8, 2, 2, dtype=torch.float64), 8)
    assert not product_is_faster(torch.zeros(1, 8, 2, 2, device="meta"), 8)
    monkeypatch.setattr(products, "SMALLEST", 257)
    assert not product_is_faster(torch.zeros(1, 8, 2, 2), 8)
