"""The two blurs of the official codes against slow loops and Pillow."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ImageFilter

from models.views.blur import gaussian_blur
from tests.models.conftest import noise_images, pillow, tensor

SIGMAS = (0.1, 0.4, 1.0, 1.3, 2.0)


@pytest.mark.parametrize("size", [16, 20, 40, 72])  # radius 0, 1, 2 and 3; one block, two and three
def test_tenth_is_a_slow_loop_that_pads_with_zeros(size: int) -> None:
    images = torch.rand(len(SIGMAS), 3, size, size, generator=torch.Generator().manual_seed(0))
    radius = int((size // 10) / 2)  # as SimCLR's data_util.py computes it
    blurred = gaussian_blur(images, torch.tensor(SIGMAS), "tenth")
    for image, sigma, ours in zip(images.double().numpy(), SIGMAS, blurred, strict=True):
        kernel = np.array([math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)])
        window = np.outer(kernel, kernel) / kernel.sum() ** 2
        padded = np.pad(image, ((0, 0), (radius, radius), (radius, radius)))
        expected = np.empty_like(image)
        for i in range(size):
            for j in range(size):
                expected[:, i, j] = (padded[:, i : i + 2 * radius + 1, j : j + 2 * radius + 1] * window).sum(
                    axis=(1, 2)
                )
        torch.testing.assert_close(ours, torch.from_numpy(expected).float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [5, 16, 19])
def test_below_twenty_pixels_a_tenth_of_the_side_is_one_pixel_and_blurs_nothing(size: int) -> None:
    images = torch.rand(len(SIGMAS), 3, size, size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(gaussian_blur(images, torch.tensor(SIGMAS), "tenth"), images)


def box(line: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """One of Pillow's three passes along the last axis: l and α of Gwosdek's eqs. 11 and 14, the ends repeated."""
    variance = sigma**2 / 3
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    reach = whole + 1
    padded = np.pad(line, [(0, 0)] * (line.ndim - 1) + [(reach, reach)], mode="edge")
    n = line.shape[-1]
    total = part * (padded[..., :n] + padded[..., 2 * reach : 2 * reach + n])
    for k in range(1, 2 * reach):
        total = total + padded[..., k : k + n]
    return total / (2 * (whole + part) + 1)


@pytest.mark.parametrize("size", [5, 40, 72])
def test_pillow_is_its_three_boxes(size: int) -> None:
    sigmas = (*SIGMAS, 3.5)
    images = torch.rand(len(sigmas), 3, size, size, generator=torch.Generator().manual_seed(0))
    blurred = gaussian_blur(images, torch.tensor(sigmas), "pillow", most=3.5)
    for image, sigma, ours in zip(images.double().numpy(), sigmas, blurred, strict=True):
        expected = image
        for _ in range(2):  # along rows, then along columns
            expected = box(box(box(expected, sigma), sigma), sigma).swapaxes(1, 2)
        torch.testing.assert_close(ours, torch.from_numpy(expected).float(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("sigma", [*SIGMAS, 3.5])
def test_pillow_is_pillow(sigma: float) -> None:
    image = noise_images(1, 40)
    expected = tensor(pillow(image[0]).filter(ImageFilter.GaussianBlur(sigma)))
    ours = gaussian_blur(image.float() / 255, torch.tensor([sigma]), "pillow", most=4.0)[0]
    torch.testing.assert_close(ours, expected, rtol=0, atol=3 / 255)  # it rounds six times by up to a half
    assert (ours - expected).mean().abs() < 0.6 / 255


def test_flat_images_stay_flat_by_pillow_and_darken_at_the_border_by_zeros() -> None:
    flat = torch.full((2, 3, 40, 40), 0.7)
    sigma = torch.tensor([0.5, 2.0])
    torch.testing.assert_close(gaussian_blur(flat, sigma, "pillow"), flat, rtol=0, atol=1e-6)
    tenth = gaussian_blur(flat, sigma, "tenth")
    torch.testing.assert_close(tenth[:, :, 2:-2, 2:-2], flat[:, :, 2:-2, 2:-2], rtol=0, atol=1e-6)
    assert (tenth[1, :, 0, 0] < 0.5 * 0.7).all()
