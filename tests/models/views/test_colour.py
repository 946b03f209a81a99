"""Colour operations against Pillow, colorsys and numpy in float64."""

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ImageEnhance, ImageOps
from torch import Tensor

from models.views.colour import blend, brightness, contrast, grey, greyed, hue, saturation, solarize
from tests.models.conftest import noise_images, pillow, tensor

Colour = Callable[[Tensor, Tensor | float], Tensor]
FACTORS = [0.0, 0.2, 1.0, 1.8]


def blended(pixels: NDArray[np.float64], other: NDArray[np.float64] | float, factor: float) -> NDArray[np.float64]:
    return np.clip(factor * pixels + (1 - factor) * other, 0, 1)


@pytest.mark.parametrize("factor", FACTORS)
def test_blends_are_their_formula(factor: float) -> None:
    x = torch.rand(2, 3, 9, 13, generator=torch.Generator().manual_seed(0))
    pixels = x.double().numpy()
    luminance = (0.299 * pixels[:, 0] + 0.587 * pixels[:, 1] + 0.114 * pixels[:, 2])[:, None]
    mean = luminance.mean(axis=(1, 2, 3), keepdims=True)
    one, rest, none = (torch.full((2, 1, 1, 1), value) for value in (factor, 1 - factor, 0.0))
    cases: list[tuple[Colour, tuple[Tensor, Tensor], NDArray[np.float64] | float]] = [
        (brightness, (none, none), 0.0), (contrast, (none, rest), mean), (saturation, (rest, none), luminance)
    ]  # fmt: skip
    for operation, shares, other in cases:
        expected = torch.from_numpy(blended(pixels, other, factor)).float()
        for ours in (operation(x, factor), operation(x, one), blend(x, one, *shares)):
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(brightness, ImageEnhance.Brightness), (contrast, ImageEnhance.Contrast), (saturation, ImageEnhance.Color)],
)
def test_colour_is_pillows(ours: Colour, theirs: type[ImageEnhance.Brightness], factor: float) -> None:
    image = noise_images(1, 24)
    expected = tensor(theirs(pillow(image[0])).enhance(factor))
    # Pillow rounds the grey it blends with, then cuts off the fraction.
    torch.testing.assert_close(ours(image.float() / 255, factor)[0], expected, rtol=0, atol=1.6 / 255)


def test_grey_is_pillows() -> None:
    image = noise_images(1, 64)
    expected = tensor(pillow(image[0]).convert("L"))
    torch.testing.assert_close(grey(image.float() / 255)[0], expected, rtol=0, atol=0.51 / 255)
    assert torch.equal(greyed(image.float() / 255)[0, 2], grey(image.float() / 255)[0, 0])


@pytest.mark.parametrize("shift", [-0.5, -0.2, 0.0, 0.1, 0.5])
def test_hue_is_colorsys(shift: float) -> None:
    pixels = noise_images(1, 16).float() / 255
    named = [(r, g, b) for r in (0.0, 1.0) for g in (0.0, 1.0) for b in (0.0, 1.0)]  # black, the primaries, …, white
    for i, rgb in enumerate([*named, (0.3, 0.3, 0.3), (0.5, 0.2, 0.2), (0.2, 0.5, 0.5)]):
        pixels[0, :, 0, i] = torch.tensor(rgb)
    expected = []
    for r, g, b in pixels[0].flatten(1).T.tolist():
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        expected.append(colorsys.hsv_to_rgb((h + shift) % 1, s, v))
    for each in (shift, torch.full((1, 1, 1, 1), shift)):
        turned = hue(pixels, each)[0].flatten(1).T
        torch.testing.assert_close(turned, torch.tensor(expected), rtol=0, atol=2e-6)


def test_solarize_is_pillows() -> None:
    images = noise_images(4, 32)
    expected = torch.stack([tensor(ImageOps.solarize(pillow(image))) for image in images])
    torch.testing.assert_close(solarize(images.float() / 255), expected, rtol=0, atol=1e-6)


def test_what_is_given_stays_as_it_is() -> None:
    x = noise_images(2, 8).float() / 255
    before = x.clone()
    for operation in (brightness, contrast, saturation, hue):
        operation(x, 0.3)
    blend(x, *(torch.full((2, 1, 1, 1), 0.3),) * 3)
    solarize(x)
    assert torch.equal(x, before)
