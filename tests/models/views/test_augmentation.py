"""What is drawn, against its law; and what is made of it, whichever way it goes, against one image after the other."""

import math
from itertools import permutations

import pytest
import torch
from torch import Generator, Tensor

from models.views import augmentation, colour
from models.views.augmentation import Draws, ViewParams, augment, draw, random_boxes, view
from models.views.blur import BlurKernel, gaussian_blur
from models.views.resample import rotate
from tests.models.conftest import noise_images

WHOLE = ViewParams(area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0)  # leaves a square image as it is
FULL = ViewParams(
    area=(0.2, 1.0), rotation=20.0, jitter=0.8, strengths=(0.8, 0.8, 0.8, 0.2), grey=0.2, blur=0.5, solarize=0.2
)
SIZES = [16, 72]  # a CPU's two ways: pieces of the batch, image by image


def law(**changes: object) -> ViewParams:
    return ViewParams(**(vars(WHOLE) | changes))


def rows(n: int, size: int, **columns: object) -> Tensor:
    """Draws that change nothing, but for these columns."""
    drawn = Draws.of(draw(n, size, size, WHOLE, torch.Generator().manual_seed(0)))
    changed = {name: torch.as_tensor(value).float().expand_as(getattr(drawn, name)) for name, value in columns.items()}
    return torch.column_stack(drawn._replace(**changed))


def is_uniform(draws: Tensor, low: float, high: float) -> bool:
    """Kolmogorov–Smirnov, at the 99.9 % point."""
    ranked = ((draws - low) / (high - low)).sort().values
    n = len(ranked)
    inside = bool((ranked >= -1e-5).all() and (ranked <= 1 + 1e-5).all())
    return inside and bool((ranked - (torch.arange(n) + 0.5) / n).abs().max() < 1.95 / math.sqrt(n))


# Draws


def test_a_row_an_image() -> None:
    draws = draw(5, 20, 30, FULL, torch.Generator().manual_seed(0))
    assert draws.shape == (5, 17)
    assert draws.dtype == torch.float32
    columns = Draws.of(draws)
    assert torch.equal(torch.column_stack(columns), draws)
    assert columns.box.shape == (5, 4)
    assert columns.factors.shape == columns.order.shape == (5, 3)
    assert all(columns[i].shape == (5,) for i in (1, 2, 5, 6, 7, 8, 9))


def test_boxes_are_inside_and_in_range(generator: Generator) -> None:
    h, w = 40, 60
    boxes = random_boxes(5000, h, w, (0.08, 1.0), (3 / 4, 4 / 3), generator)
    top, left, height, width = boxes.unbind(1)
    assert torch.equal(boxes, boxes.round())
    assert min(top.min(), left.min()) == 0
    assert min(height.min(), width.min()) >= 1
    assert (top + height).max() == (top + height)[height < h].max() == h  # the last place is taken as well
    assert (left + width).max() == (left + width)[width < w].max() == w
    smallest, largest = (height - 0.5) * (width - 0.5), (height + 0.5) * (width + 0.5)  # before rounding
    assert (largest >= 0.08 * h * w).all()
    assert (smallest <= 1.0 * h * w).all()
    assert ((width + 0.5) / (height - 0.5) >= 3 / 4).all()
    assert ((width - 0.5) / (height + 0.5) <= 4 / 3).all()


def test_area_log_aspect_and_place_are_uniform(generator: Generator) -> None:
    n, side = 4000, 1000
    top, left, height, width = random_boxes(n, side, side, (0.1, 0.3), (0.5, 2.0), generator).unbind(1)
    span = math.log(2)
    assert is_uniform((height * width / side**2).clamp(0.1, 0.3), 0.1, 0.3)
    assert is_uniform((width / height).log().clamp(-span, span), -span, span)
    assert is_uniform(top / (side - height), 0, 1)
    assert is_uniform(left / (side - width), 0, 1)


@pytest.mark.parametrize(
    ("h", "w", "box"),
    [(10, 200, (0, 93, 10, 13)), (200, 10, (93, 0, 13, 10)), (20, 20, (0, 0, 20, 20))],
)
def test_where_no_box_fits_the_central_one_is_taken(
    h: int, w: int, box: tuple[int, int, int, int], generator: Generator
) -> None:
    boxes = random_boxes(50, h, w, (1.0, 1.0), (3 / 4, 4 / 3) if h != w else (1.0, 1.0), generator)
    assert torch.equal(boxes, torch.tensor(box).float().expand(50, 4))


def test_factors_shifts_angles_and_sigmas_are_uniform(generator: Generator) -> None:
    p = law(jitter=1.0, strengths=(0.4, 0.8, 1.5, 0.1), rotation=15.0, blur=1.0, sigma=(0.1, 2.0))
    d = Draws.of(draw(4000, 8, 8, p, generator))
    assert is_uniform(d.factors[:, 0], 0.6, 1.4)
    assert is_uniform(d.factors[:, 1], 0.2, 1.8)
    assert is_uniform(d.factors[:, 2], 0.0, 2.5)  # never below 0
    assert is_uniform(d.hue, -0.1, 0.1)
    assert is_uniform(d.angle, -15, 15)
    assert is_uniform(d.sigma, 0.1, 2.0)
    together = torch.column_stack(
        [d.factors, d.hue, d.angle, d.sigma, d.order[:, 0], d.turn, d.flip + torch.rand(4000)]
    )
    assert (torch.corrcoef(together.T) - torch.eye(9)).abs().max() < 4.5 / math.sqrt(4000)  # independent


def test_all_24_orders_are_as_frequent(generator: Generator) -> None:
    d = Draws.of(draw(24_000, 8, 8, FULL, generator))
    code = (d.order @ torch.tensor([100.0, 10.0, 1.0]) * 10 + d.turn).int()
    orders, counts = torch.unique(code, return_counts=True)
    assert len(orders) == 24
    assert ((counts - 1000) ** 2 / 1000).sum() < 49.7  # χ², 23 degrees of freedom, 99.9 %
    assert (d.order.sort(dim=1).values == torch.arange(3)).all()


@pytest.mark.parametrize("name", ["flip", "jitter", "grey", "blur", "solarize"])
def test_a_probability_is_the_share_of_images(name: str, generator: Generator) -> None:
    d = Draws.of(draw(4000, 8, 8, law(**{"strengths": (0.4, 0.4, 0.4, 0.1), name: 0.3}), generator))
    done = {
        "flip": d.flip > 0,
        "jitter": (d.factors != 1).all(dim=1) & (d.hue != 0),
        "grey": d.grey > 0,
        "blur": d.sigma > 0,
        "solarize": d.solarize > 0,
    }
    if name == "jitter":
        assert torch.equal(done["jitter"], (d.factors != 1).any(dim=1) | (d.hue != 0))  # all four, or none
    for each, chosen in done.items():
        share = chosen.float().mean().item()
        assert share == (pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 4000)) if each == name else 0)


def test_the_generator_decides_and_nothing_else() -> None:
    images, state = noise_images(4, 20), torch.get_rng_state()
    same, again, other = (view(images, 16, FULL, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(same, again)
    assert not torch.equal(same, other)
    assert torch.equal(torch.get_rng_state(), state)


# Views


@pytest.mark.parametrize("size", SIZES)
def test_each_operation_with_known_parameters(size: int) -> None:
    images = noise_images(3, size)
    x = images.float() / 255
    everything = law(jitter=1.0, strengths=(0.8,) * 3 + (0.2,), grey=1.0, blur=1.0, solarize=1.0)
    pillow = law(blur=1.0, blur_kernel="pillow")
    sigma = torch.tensor([0.5, 1.0, 2.0])
    tenth, boxes = (gaussian_blur(x, sigma, kernel) for kernel in ("tenth", "pillow"))
    for p, columns, expected in (
        (WHOLE, {"flip": 1}, x.flip(3)),
        (everything, {}, x),
        (law(rotation=20.0), {"angle": 10.0}, rotate(x, torch.tensor([10.0] * 3))),
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
    p = law(jitter=1.0, strengths=(0.8, 0.8, 0.8, 0.2))
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


@pytest.mark.parametrize("name", ["flip", "jitter", "grey", "blur", "solarize"])
def test_impossible_probability_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 1.5, a probability"):
        law(**{name: 1.5})


def test_impossible_sigma_is_named() -> None:
    with pytest.raises(ValueError, match=r"sigma is \[0.0, 2.0\]"):
        law(sigma=(0.0, 2.0))
