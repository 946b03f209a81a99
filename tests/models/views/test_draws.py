"""What is drawn for a view is distributed as its settings say."""

import math

import pytest
import torch
from torch import Generator, Tensor

from models.views.augmentation import PROBABILITIES, Draws, draw, view
from models.views.chance import random_boxes
from tests.models.conftest import noise_images
from tests.models.views.params import FULL, view_params


def is_uniform(draws: Tensor, low: float, high: float) -> bool:
    """Kolmogorov–Smirnov, at the 99.9 % point."""
    ranked = ((draws - low) / (high - low)).sort().values
    n = len(ranked)
    inside = bool((ranked >= -1e-5).all() and (ranked <= 1 + 1e-5).all())
    return inside and bool((ranked - (torch.arange(n) + 0.5) / n).abs().max() < 1.95 / math.sqrt(n))


def test_a_row_an_image() -> None:
    draws = draw(5, 20, 30, FULL, torch.Generator().manual_seed(0))
    assert draws.shape == (5, 23)
    assert draws.dtype == torch.float32
    columns = Draws.of(draws)
    assert torch.equal(torch.column_stack(columns), draws)
    assert columns.box.shape == (5, 4)
    assert columns.factors.shape == columns.order.shape == (5, 3)
    assert all(columns[i].shape == (5,) for i in (1, 2, *range(5, 13)))
    assert columns.cutout.shape == (5, 3)


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
    p = view_params(jitter=1.0, strengths=(0.4, 0.8, 1.5, 0.1), rotation=15.0, blur=1.0, sigma=(0.1, 2.0))
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


@pytest.mark.parametrize("side", [8, 16, 31, 32, 224])
def test_an_area_of_one_is_the_whole_image_whatever_the_aspect(side: int, generator: Generator) -> None:
    boxes = random_boxes(2000, side, side, (1.0, 1.0), (3 / 4, 4 / 3), generator)
    assert torch.equal(boxes, torch.tensor([0.0, 0.0, side, side]).expand(2000, 4))


@pytest.mark.parametrize("name", PROBABILITIES)
def test_a_probability_is_the_share_of_images(name: str, generator: Generator) -> None:
    d = Draws.of(draw(4000, 8, 8, view_params(**{"strengths": (0.4, 0.4, 0.4, 0.1), name: 0.3}), generator))
    done = {
        "flip": d.flip > 0,
        "jitter": (d.factors != 1).all(dim=1) & (d.hue != 0),
        "grey": d.grey > 0,
        "blur": d.sigma > 0,
        "solarize": d.solarize > 0,
        "quarter_turn": d.quarters > 0,
        "sobel": d.sobel > 0,
        "noise": d.noise > 0,
        "cutout": d.cutout[:, 2] > 0,
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
