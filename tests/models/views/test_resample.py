"""Crop, mirror, resize and rotation against Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor

from models.views.augmentation import ViewParams, draw
from models.views.resample import Filter, interpolation, products, resized_crop, resized_crop_bytes, rotate
from tests.models.conftest import noise_images, pillow, tensor

RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
BOXES = [(0, 0, 23, 31), (3, 5, 14, 17), (9, 0, 14, 8), (22, 30, 1, 1), (4, 4, 5, 27)]  # top, left, height, width
Box = tuple[int, int, int, int]


def crop(image: Tensor, box: Box, size: int, kernel: Filter) -> Tensor:
    """Float (3, H, W) → (3, size, size)."""
    return resized_crop(image[None], torch.tensor([box]).to(image.dtype), torch.tensor([False]), size, kernel)[0]


@pytest.mark.parametrize("size", [7, 16, 40])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("box", BOXES)
def test_resized_crop_is_pillows_in_floats(box: Box, kernel: Filter, size: int) -> None:
    top, left, height, width = box
    image = torch.rand(3, 23, 31, generator=torch.Generator().manual_seed(0))
    planes = [Image.fromarray(plane).crop((left, top, left + width, top + height)) for plane in image.numpy()]
    expected = torch.from_numpy(np.stack([np.array(p.resize((size, size), RESAMPLE[kernel])) for p in planes]))
    torch.testing.assert_close(crop(image, box, size, kernel), expected.clamp(0, 1), rtol=0, atol=5e-6)
    exact = crop(image.double(), box, size, kernel)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), expected.clamp(0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [7, 40])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("box", BOXES)
def test_resized_crop_is_pillows_to_a_grey_level(box: Box, kernel: Filter, size: int) -> None:
    top, left, height, width = box
    image = (noise_images(1, 31)[0, :, :23] // 4 + 96).byte()  # far from 0 and 255, where Pillow clips between passes
    expected = pillow(image).crop((left, top, left + width, top + height)).resize((size, size), RESAMPLE[kernel])
    rounding = 0.5 + 0.5 * {"bilinear": 1.0, "bicubic": 1.25}[kernel]  # rounded twice, the first spread by the kernel
    ours = crop(image.float() / 255, box, size, kernel)
    torch.testing.assert_close(ours, tensor(expected), rtol=0, atol=(rounding + 0.01) / 255)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("flip", [False, True])
def test_resized_bytes_are_pillows(kernel: Filter, flip: bool) -> None:
    images = noise_images(len(BOXES), 31)[:, :, :23]
    flips = torch.tensor([flip] * len(BOXES))
    ours = resized_crop_bytes(images, torch.tensor(BOXES).float(), flips, 40, kernel)
    for image, (top, left, height, width), view in zip(images, BOXES, ours, strict=True):
        expected = pillow(image).crop((left, top, left + width, top + height)).resize((40, 40), RESAMPLE[kernel])
        upright = view.flip(2) if flip else view
        torch.testing.assert_close(upright.float() / 255, tensor(expected), rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_whole_image_at_its_size_is_itself(kernel: Filter) -> None:
    image = noise_images(1, 24)[0].float() / 255
    assert torch.equal(crop(image, (0, 0, 24, 24), 24, kernel), image)


def test_each_image_has_its_own_box_and_flip() -> None:
    images = noise_images(3, 24).float() / 255
    boxes = [(0, 0, 24, 24), (2, 3, 10, 12), (5, 1, 7, 20)]
    views = resized_crop(images, torch.tensor(boxes).float(), torch.tensor([True, False, True]), 16, "bicubic")
    for i, (box, flipped) in enumerate(zip(boxes, (True, False, True), strict=True)):
        alone = crop(images[i], box, 16, "bicubic")
        torch.testing.assert_close(views[i], alone.flip(2) if flipped else alone, rtol=0, atol=2e-6)


def test_rotation_is_counter_clockwise() -> None:
    images = noise_images(4, 16).float() / 255
    turned = rotate(images, torch.tensor([0.0, 90.0, 180.0, -90.0]))
    for i, quarters in enumerate((0, 1, 2, -1)):
        torch.testing.assert_close(turned[i], torch.rot90(images[i], quarters, (1, 2)), rtol=0, atol=1e-5)
    slanted = rotate(torch.ones(1, 3, 16, 16), torch.tensor([45.0]))[0, 0]
    assert slanted[0, 0] == 0
    assert slanted[8, 8] == pytest.approx(1)


@pytest.mark.parametrize("size", [32, 224])
def test_half_precision_is_less_than_half_a_grey_level_off(size: int) -> None:
    """What a GPU does for its speed, done here: crops of noise, whose contrasts are the strongest there are."""
    params, generator = ViewParams(area=(0.08, 1.0)), Generator().manual_seed(0)
    x = torch.rand(32, 3, size, size, generator=generator).round()
    top, left, height, width = draw(32, size, size, params, generator)[:, :4].unbind(1)
    rows, columns = (interpolation(a, n / size, size, size, params.filter) for a, n in ((top, height), (left, width)))
    off = products(x.half(), rows.half(), columns.half()).float() - products(x, rows, columns)
    assert off.abs().max() < 0.5 / 255
