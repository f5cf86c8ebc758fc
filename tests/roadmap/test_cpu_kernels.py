"""The CPU's own ways equal torch's, in values, gradients and in what others see of a network."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from roadmap import build, complexity_of, cpu_kernels, layers
from roadmap.cpu_kernels import applies, depthwise, gradients_are_slow, mkl_is_slow, product, product_is_faster

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN"),
]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are used on whatever processor."""
    monkeypatch.setattr(cpu_kernels, "_vector_unit", lambda: "AVX2")
    monkeypatch.setattr(cpu_kernels, "_mkl_holds_back", lambda: True)


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
    for kernel in ("product", "depthwise"):
        monkeypatch.setattr(layers, kernel, None)  # from here on a call would fail
    with FlopCounterMode(display=False) as counter:
        network(images)
    macs = complexity_of("separate_downsampling", regime="micro", image_size=64, num_classes=10).macs
    assert counter.get_total_flops() == 2 * macs
    torch.testing.assert_close(torch.jit.trace(network, images, check_trace=False)(images), expected)
    torch.testing.assert_close(torch.export.export(network, (images,)).module()(images), expected)
    torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(images), expected)


@pytest.mark.usefixtures("always")
def test_gradients_by_function_transforms() -> None:
    x, weight, bias = tensors()

    def loss(linear, weight: Tensor) -> Tensor:
        return linear(x, weight, bias).sin().sum()

    found = [torch.func.grad(lambda w, linear=linear: loss(linear, w))(weight) for linear in (product, F.linear)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("always")
def test_products_are_for_fp32_on_a_cpu_and_few_rows() -> None:
    assert mkl_is_slow(torch.zeros(1, 8, 2, 2))
    assert not mkl_is_slow(torch.zeros(1, 8, 2, 2, dtype=torch.float64))
    assert not mkl_is_slow(torch.zeros(1, 8, 2, 2, device="meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not mkl_is_slow(torch.zeros(1, 8, 2, 2))
        assert applies(torch.zeros(1, 8, 2, 2))
    assert product_is_faster(torch.zeros(100, 1, 2, 2))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("threads", [1, 2])
def test_products_are_for_few_images_on_one_thread(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert product_is_faster(torch.zeros(15, 1, 50, 50)) == (threads == 1)
    assert not product_is_faster(torch.zeros(16, 1, 50, 50))


@pytest.mark.parametrize(
    "size, stride, side, slow, slow_in_bf16",
    [
        (3, 1, 3, False, False),
        (3, 1, 2, True, True),
        (3, 2, 4, False, True),
        (3, 2, 3, True, True),
        (5, 1, 9, True, True),
    ],
)
def test_depthwise_convolutions_of_large_kernels_on_small_maps_and_strided_narrow_ones_are_slow(
    size: int, stride: int, side: int, slow: bool, slow_in_bf16: bool
) -> None:
    x = torch.zeros(1, 4, side, side)
    assert gradients_are_slow(x, size, stride) == slow
    assert gradients_are_slow(x.bfloat16(), size, stride) == slow_in_bf16
    with torch.autocast("cpu", torch.bfloat16):
        assert gradients_are_slow(x, size, stride) == slow_in_bf16


SIDES = ((9, 6), (1, 2), (2, 5), (3, 3), (14, 13))
CASES = [(size, stride, side) for size in (3, 5, 7, 9, 11) for stride in (1, 2) for side in SIDES]


@pytest.mark.parametrize("size, stride, side", CASES)
def test_a_depthwise_convolution_has_its_gradients_of_both_orders(
    size: int, stride: int, side: tuple[int, int]
) -> None:
    found = []
    for convolve in (depthwise, lambda x, w, b, stride: F.conv2d(x, w, b, stride, size // 2, groups=6)):
        generator = torch.Generator().manual_seed(0)
        shapes = ((3, 6, *side), (6, 1, size, size), (6,))
        wanted = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
        out = convolve(*wanted, stride)
        first = torch.autograd.grad(out.sin().sum(), wanted, create_graph=True)
        found.append([out, *first, *torch.autograd.grad(sum(grad.square().sum() for grad in first), wanted)])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("size, stride", [(7, 1), (7, 2), (3, 1), (3, 2)])
def test_a_depthwise_convolution_under_autocast_is_narrow_and_its_gradients_are_wide(size: int, stride: int) -> None:
    x, weight, bias = torch.randn(2, 6, 9, 9), torch.randn(6, 1, size, size), torch.randn(6)
    wanted = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    found = []
    for convolve in (depthwise, lambda x, w, b, stride: F.conv2d(x, w, b, stride, size // 2, groups=6)):
        with torch.autocast("cpu", torch.bfloat16):
            out = convolve(*wanted, stride)
        assert out.dtype == torch.bfloat16
        found.append([out, *torch.autograd.grad(out.float().square().sum(), wanted)])
    assert all(grad.dtype == torch.float32 for grad in found[0][1:])
    torch.testing.assert_close(found[0], found[1], rtol=0.02, atol=0.5)
