"""Quarter turns, Sobel filter, noise and Cutout against loops and closed forms."""

import math

import pytest
import torch
from torch import Tensor

from models.views.augmentation import augment, draw
from models.views.distortion import GREY, NOISE, gaussian_noise, normal, quarter_turn, scrambled, sobel
from tests.models.conftest import noise_images
from tests.models.views.params import view_params

SEEDS = torch.tensor([1.0, 2.0, 77.0, 2.0**24 - 1])


def test_sobel_is_a_slow_loop() -> None:
    x = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = ((1, 2, 1), (0, 0, 0), (-1, -2, -1))
    expected = torch.zeros_like(x)
    for c in range(3):
        for i in range(5):
            for j in range(7):
                near = [[x[0, c, min(max(i + a, 0), 4), min(max(j + b, 0), 6)].item() for b in (-1, 0, 1)]
                        for a in (-1, 0, 1)]  # fmt: skip
                down = sum(kernel[a][b] * near[a][b] for a in range(3) for b in range(3))
                across = sum(kernel[b][a] * near[a][b] for a in range(3) for b in range(3))
                expected[0, c, i, j] = min(1.0, math.hypot(down, across) / 4)
    torch.testing.assert_close(sobel(x), expected, rtol=0, atol=1e-12)


def test_sobel_of_an_edge_is_one_and_of_a_flat_image_zero() -> None:
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    found = sobel(edge)
    assert (found[..., 3:5] == 1).all()
    assert (found[..., :3] == 0).all()
    assert (sobel(torch.full((1, 3, 8, 8), 0.7)) < 1e-6).all()


def test_noise_is_normal_and_independent() -> None:
    made = normal(torch.arange(1.0, 41.0), 3 * 32 * 32).double()  # (40, 3072)
    values = made.flatten().sort().values
    n = len(values)
    expected = torch.special.ndtr(values)
    assert (expected - (torch.arange(n) + 0.5) / n).abs().max() < 1.95 / math.sqrt(n)  # Kolmogorov–Smirnov, 99.9 %
    images = torch.corrcoef(made) - torch.eye(40)
    assert images.abs().max() < 5 / math.sqrt(made.shape[1])
    for lag in (1, 2, 32, 1024):  # neighbours in a row, in a column, and channels of a pixel
        assert (made[:, lag:] * made[:, :-lag]).mean().abs() < 4 / math.sqrt(n)


def test_noise_is_a_function_of_the_seed() -> None:
    together, alone = normal(SEEDS, 100), normal(SEEDS[2:3], 100)
    assert torch.equal(together[2], alone[0])
    assert torch.equal(normal(SEEDS.double(), 100).float(), normal(SEEDS.double(), 100).float())
    torch.testing.assert_close(normal(SEEDS.double(), 100).float(), together, rtol=1e-4, atol=1e-5)
    assert together.isfinite().all()


def test_the_hash_is_one_to_one_and_spreads_evenly() -> None:
    bits = scrambled(torch.arange(2**16))
    assert len(set(bits.tolist())) == 2**16
    assert bits.min() >= 0
    assert bits.max() < 2**32
    counts = (bits >> 28).bincount(minlength=16).double()
    assert ((counts - 4096) ** 2 / 4096).sum() < 37.7  # χ², 15 degrees of freedom, 99.9 %


def test_noise_has_its_standard_deviation_and_is_cut_off() -> None:
    grey = torch.full((4, 3, 64, 64), 0.5)
    noisy = gaussian_noise(grey, SEEDS)
    assert (noisy - grey).std().item() == pytest.approx(NOISE, rel=0.02)
    dark = gaussian_noise(torch.zeros(4, 3, 64, 64), SEEDS)
    assert dark.min() == 0
    assert (dark == 0).double().mean().item() == pytest.approx(0.5, abs=0.02)


def test_four_quarter_turns_are_none() -> None:
    x = noise_images(2, 8).float()
    turned = quarter_turn(x, 1)
    assert torch.equal(turned[:, :, 0, 0], x[:, :, 0, -1])  # counter-clockwise: the top right comes to the top left
    for _ in range(3):
        turned = quarter_turn(turned, 1)
    assert torch.equal(turned, x)


@pytest.mark.parametrize("size", [16, 72])  # a CPU's two ways
@pytest.mark.parametrize("name", ["quarter_turn", "sobel", "noise", "cutout"])
def test_a_view_is_distorted_where_it_was_drawn(name: str, size: int) -> None:
    images, p = noise_images(64, size), view_params(**{name: 0.5})
    generator = torch.Generator().manual_seed(0)
    draws = draw(64, size, size, p, generator)
    made = augment(images, draws, size, p)
    same = (made - images / 255).abs().amax(dim=(1, 2, 3)) < 1e-5
    column = {"quarter_turn": 17, "sobel": 18, "noise": 19, "cutout": 22}[name]
    assert torch.equal(same, draws[:, column] == 0)
    assert 16 < same.sum() < 48


def test_cutout_hides_a_square_of_half_the_side() -> None:
    p = view_params(cutout=1.0)
    images = torch.full((2000, 3, 32, 32), 255, dtype=torch.uint8)
    hidden = augment(images, draw(2000, 32, 32, p, torch.Generator().manual_seed(0)), 32, p)[:, 0] == GREY
    shares = hidden.double().mean(dim=(1, 2))
    assert shares.max() == pytest.approx(0.25, abs=0.001)
    assert shares.mean().item() == pytest.approx(0.1914, abs=0.006)  # (3/8 + 1/16)², with what lies outside


def rows_of(draws: Tensor) -> Tensor:
    return draws[:, :17]


@pytest.mark.parametrize("name", ["quarter_turn", "sobel", "noise", "cutout"])
def test_what_is_off_takes_no_number(name: str) -> None:
    before, after = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    older = draw(8, 20, 20, view_params(jitter=0.8, strengths=(0.4,) * 4, blur=0.5), before)
    newer = draw(8, 20, 20, view_params(jitter=0.8, strengths=(0.4,) * 4, blur=0.5, **{name: 0.5}), after)
    assert torch.equal(rows_of(older), rows_of(newer))
    assert (older[:, 17:] == 0).all()
    assert not torch.equal(before.get_state(), after.get_state())
