"""What is made of the draws, whichever way it goes, equals one image after the other."""

from itertools import permutations

import pytest
import torch
from torch import Generator, Tensor

from models.views import augmentation, colour
from models.views.augmentation import PROBABILITIES, Draws, ViewParams, augment, draw, view
from models.views.blur import BlurKernel, gaussian_blur
from models.views.resample import rotate
from tests.models.conftest import noise_images
from tests.models.views.params import FULL, WHOLE, view_params

SIZES = [16, 72]  # a CPU's two ways: pieces of the batch, image by image


def rows(n: int, size: int, **columns: object) -> Tensor:
    """Draws that change nothing, but for these columns."""
    drawn = Draws.of(draw(n, size, size, WHOLE, torch.Generator().manual_seed(0)))
    changed = {name: torch.as_tensor(value).float().expand_as(getattr(drawn, name)) for name, value in columns.items()}
    return torch.column_stack(drawn._replace(**changed))


@pytest.mark.parametrize("size", SIZES)
def test_each_operation_with_known_parameters(size: int) -> None:
    images = noise_images(3, size)
    x = images.float() / 255
    everything = view_params(jitter=1.0, strengths=(0.8,) * 3 + (0.2,), grey=1.0, blur=1.0, solarize=1.0)
    pillow = view_params(blur=1.0, blur_kernel="pillow")
    sigma = torch.tensor([0.5, 1.0, 2.0])
    tenth, boxes = (gaussian_blur(x, sigma, kernel) for kernel in ("tenth", "pillow"))
    for p, columns, expected in (
        (WHOLE, {"flip": 1}, x.flip(3)),
        (everything, {}, x),
        (view_params(rotation=20.0), {"angle": 10.0}, rotate(x, torch.tensor([10.0] * 3))),
        (everything, {"factors": [1.5, 1.0, 1.0]}, colour.brightness(x, 1.5)),
        (everything, {"factors": [1.0, 1.5, 1.0]}, colour.contrast(x, 1.5)),
        (everything, {"factors": [1.0, 1.0, 1.5]}, colour.saturation(x, 1.5)),
        (everything, {"hue": 0.1}, colour.hue(x, 0.1)),
        (everything, {"grey": 1}, colour.greyed(x)),
        (everything, {"sigma": sigma}, tenth),
        (pillow, {"sigma": sigma}, boxes),
        (everything, {"solarize": 1}, colour.solarize(x)),
        (everything, {"grey": torch.tensor([0, 1, 0])}, torch.stack([x[0], colour.greyed(x)[1], x[2]])),
    ):
        ours = augment(images, rows(3, size, **columns), size, p)
        torch.testing.assert_close(ours, expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("size", SIZES)
def test_every_order_is_gone_through_step_by_step(size: int) -> None:
    x = noise_images(1, size).float() / 255
    factors, shift = (1.4, 0.5, 1.7), 0.15
    steps = {
        "0": lambda x: colour.brightness(x, factors[0]),
        "1": lambda x: colour.contrast(x, factors[1]),
        "2": lambda x: colour.saturation(x, factors[2]),
        "h": lambda x: colour.hue(x, shift),
    }
    expected, orders, turns = [], [], []
    for names in permutations("012h"):
        y = x
        for name in names:
            y = steps[name](y)
        expected.append(y)
        orders.append([float(name) for name in names if name != "h"])
        turns.append(float(names.index("h")))
    drawn = rows(24, size, factors=torch.tensor(factors), hue=shift, order=orders, turn=turns)
    p = view_params(jitter=1.0, strengths=(0.8, 0.8, 0.8, 0.2))
    ours = augment(noise_images(1, size).expand(24, -1, -1, -1), drawn, size, p)
    torch.testing.assert_close(ours, torch.cat(expected), rtol=0, atol=1e-5)
    assert torch.cdist(ours.flatten(1), ours.flatten(1)).add(torch.eye(24)).min() > 0.01  # no two orders are one


@pytest.mark.parametrize("kernel", ["tenth", "pillow"])
def test_the_whole_batch_at_once_is_the_same(
    kernel: BlurKernel, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, p = noise_images(16, 24), ViewParams(**(vars(FULL) | {"blur_kernel": kernel}))
    draws = draw(16, 24, 24, p, generator)
    monkeypatch.setattr(augmentation, "CACHE", 5 * 3 * 20 * 20)
    pieces = augment(images, draws, 20, p)
    monkeypatch.setattr(augmentation, "whole", lambda x: True)
    torch.testing.assert_close(augment(images, draws, 20, p), pieces, rtol=0, atol=1e-5)


def test_bytes_are_within_a_grey_level_of_floats(generator: Generator) -> None:
    images = (noise_images(8, 80) // 4 + 96).byte()  # far from 0 and 255, where bytes are clipped between the passes
    p = ViewParams(area=(0.2, 1.0))
    draws = draw(8, 80, 80, p, generator)
    rounded, exact = augment(images, draws, 64, p), augment(images, draws.double(), 64, p)
    assert exact.dtype == torch.float64
    assert (rounded - exact).abs().max() < 1.5 / 255


def test_float64_is_the_same_with_more_digits(generator: Generator) -> None:
    images, draws = noise_images(16, 24), draw(16, 24, 24, FULL, generator)
    exact = augment(images, draws.double(), 20, FULL)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(augment(images, draws, 20, FULL), exact.float(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("kernel", ["tenth", "pillow"])
def test_a_device_never_waits_for_the_host(kernel: BlurKernel, generator: Generator) -> None:
    p = ViewParams(**(vars(FULL) | {"blur_kernel": kernel}))
    draws = draw(4, 80, 80, p, generator)
    made = augment(noise_images(4, 80).to("meta"), draws.to("meta"), 64, p)  # no value can be asked for there
    assert made.shape == (4, 3, 64, 64)
    assert made.device.type == "meta"


def test_compiled_it_is_one_graph_and_few_batch_sizes_make_it_anew(generator: Generator) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    compiled = torch.compile(augment, backend=backend, fullgraph=True)
    for n in (8, 12, 20, 7):
        images, draws = noise_images(n, 24), draw(n, 24, 24, FULL, generator)
        made = compiled(images, draws, 20, FULL)
        torch.testing.assert_close(made, augment(images, draws, 20, FULL), rtol=0, atol=1e-5)
    assert len(graphs) <= 2
    torch.compiler.reset()


@pytest.mark.parametrize("size", SIZES)
def test_each_image_gets_its_own_view(size: int, generator: Generator) -> None:
    images = noise_images(1, 32).expand(16, -1, -1, -1)
    made = view(images, size, FULL, generator)
    assert made.shape == (16, 3, size, size)
    assert made.dtype == torch.float32
    assert made.min() >= 0
    assert made.max() <= 1
    distances = torch.cdist(made.flatten(1), made.flatten(1)) + torch.eye(16)
    assert distances.min() > 0.1
    assert torch.equal(images, noise_images(1, 32).expand(16, -1, -1, -1))


@pytest.mark.parametrize("area", [(0.0, 1.0), (0.5, 0.2), (0.5, 1.1)])
def test_impossible_area_is_named(area: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="area is"):
        ViewParams(area=area)


@pytest.mark.parametrize("name", PROBABILITIES)
def test_impossible_probability_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 1.5, a probability"):
        view_params(**{name: 1.5})


def test_impossible_sigma_is_named() -> None:
    with pytest.raises(ValueError, match=r"sigma is \[0.0, 2.0\]"):
        view_params(sigma=(0.0, 2.0))
