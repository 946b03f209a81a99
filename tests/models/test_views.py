"""Resampling and colour against Pillow, colorsys and slow loops; what is drawn, against its law."""

import colorsys
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from torch import Generator, Tensor

from models.blur import gaussian_blur
from models.colour import brightness, contrast, grey, hue, saturation
from models.resample import Filter, interpolation, products, resized_crop, rotate
from models.views import Draws, ViewParams, draw, random_boxes, view
from tests.models.conftest import noise_images

RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
BOXES = [(0, 0, 23, 31), (3, 5, 14, 17), (9, 0, 14, 8), (22, 30, 1, 1), (4, 4, 5, 27)]  # top, left, height, width
WHOLE = ViewParams(area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0)  # leaves a square image as it is


Colour = Callable[[Tensor, Tensor], Tensor]


def pillow(image: Tensor) -> Image.Image:
    """uint8 (3, H, W) → RGB."""
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> Tensor:
    """RGB or L → (3 or 1, H, W) in [0, 1]."""
    pixels: NDArray[np.uint8] = np.array(image).reshape(image.height, image.width, -1)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def crop(image: Tensor, box: tuple[int, int, int, int], size: int, kernel: Filter) -> Tensor:
    """Float (3, H, W) → (3, size, size)."""
    return resized_crop(image[None], torch.tensor([box]).float(), torch.tensor([False]), size, kernel)[0]


@pytest.mark.parametrize("size", [32, 224])
def test_half_precision_is_less_than_half_a_grey_level_off(size: int) -> None:
    """What a GPU does for its speed, done here: crops of noise, whose contrasts are the strongest there are."""
    law, generator = ViewParams(area=(0.08, 1.0)), Generator().manual_seed(0)
    x = torch.rand(32, 3, size, size, generator=generator).round()
    top, left, height, width = draw(32, size, size, law, generator)[:, :4].unbind(1)
    rows, columns = (interpolation(a, n, size, size, law.filter) for a, n in ((top, height), (left, width)))
    off = products(x.half(), rows.half(), columns.half()).float() - products(x, rows, columns)
    assert off.abs().max() < 0.5 / 255


@pytest.mark.parametrize("size", [7, 16, 40])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("box", BOXES)
def test_resized_crop_is_pillows_in_floats(box: tuple[int, int, int, int], kernel: Filter, size: int) -> None:
    top, left, height, width = box
    image = torch.rand(3, 23, 31, generator=torch.Generator().manual_seed(0))
    planes = [Image.fromarray(plane).crop((left, top, left + width, top + height)) for plane in image.numpy()]
    expected = np.stack([np.array(plane.resize((size, size), RESAMPLE[kernel])) for plane in planes])
    torch.testing.assert_close(
        crop(image, box, size, kernel), torch.from_numpy(expected).clamp(0, 1), rtol=0, atol=5e-6
    )


@pytest.mark.parametrize("size", [7, 40])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("box", BOXES)
def test_resized_crop_is_pillows_to_a_grey_level(box: tuple[int, int, int, int], kernel: Filter, size: int) -> None:
    top, left, height, width = box
    image = (noise_images(1, 31)[0, :, :23] // 4 + 96).byte()  # far from 0 and 255, where Pillow clips between passes
    expected = pillow(image).crop((left, top, left + width, top + height)).resize((size, size), RESAMPLE[kernel])
    rounding = 0.5 + 0.5 * {"bilinear": 1.0, "bicubic": 1.25}[kernel]  # rounded twice, the first spread by the kernel
    ours = crop(image.float() / 255, box, size, kernel)
    torch.testing.assert_close(ours, tensor(expected), rtol=0, atol=(rounding + 0.01) / 255)


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
        torch.testing.assert_close(views[i], alone.flip(2) if flipped else alone)


@pytest.mark.parametrize("factor", [0.0, 0.2, 1.0, 1.8])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(brightness, ImageEnhance.Brightness), (contrast, ImageEnhance.Contrast), (saturation, ImageEnhance.Color)],
)
def test_colour_is_pillows(ours: Colour, theirs: type[ImageEnhance.Brightness], factor: float) -> None:
    image = noise_images(1, 24)
    expected = tensor(theirs(pillow(image[0])).enhance(factor))
    # Pillow rounds the grey it blends with, then cuts off the fraction.
    torch.testing.assert_close(
        ours(image.float() / 255, torch.tensor(factor).view(1, 1, 1, 1))[0], expected, rtol=0, atol=1.6 / 255
    )


def test_grey_is_pillows() -> None:
    image = noise_images(1, 64)
    torch.testing.assert_close(
        grey(image.float() / 255)[0], tensor(pillow(image[0]).convert("L")), rtol=0, atol=0.51 / 255
    )


@pytest.mark.parametrize("shift", [-0.5, -0.2, 0.0, 0.1, 0.5])
def test_hue_is_colorsys(shift: float) -> None:
    pixels = noise_images(1, 16).float() / 255
    pixels[0, :, 0, 0] = 0.3  # a grey one, whose hue is not defined
    expected = []
    for r, g, b in pixels[0].flatten(1).T.tolist():
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        expected.append(colorsys.hsv_to_rgb((h + shift) % 1, s, v))
    turned = hue(pixels, torch.tensor(shift).view(1, 1, 1, 1))[0].flatten(1).T
    torch.testing.assert_close(turned, torch.tensor(expected), rtol=0, atol=1e-5)


def test_neutral_jitter_changes_nothing() -> None:
    images = noise_images(2, 16).float() / 255
    for operation, neutral in ((brightness, 1.0), (contrast, 1.0), (saturation, 1.0), (hue, 0.0)):
        torch.testing.assert_close(operation(images, torch.tensor(neutral).view(1, 1, 1, 1)), images, rtol=0, atol=1e-6)


def test_blur_is_a_slow_loop() -> None:
    images, sigmas, radius = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0)), (0.3, 1.0, 2.0), 2
    blurred = gaussian_blur(images, torch.tensor(sigmas), "tenth")
    for image, sigma, ours in zip(images.numpy(), sigmas, blurred, strict=True):
        kernel = np.array([math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)])
        window = np.outer(kernel, kernel) / kernel.sum() ** 2
        padded = np.pad(image, ((0, 0), (radius, radius), (radius, radius)))
        expected = np.empty_like(image)
        for i in range(40):
            for j in range(40):
                expected[:, i, j] = (padded[:, i : i + 5, j : j + 5] * window).sum(axis=(1, 2))
        torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=0, atol=1e-6)


def test_rotation_is_counter_clockwise() -> None:
    images = noise_images(4, 16).float() / 255
    turned = rotate(images, torch.tensor([0.0, 90.0, 180.0, -90.0]))
    for i, quarters in enumerate((0, 1, 2, -1)):
        torch.testing.assert_close(turned[i], torch.rot90(images[i], quarters, (1, 2)), rtol=0, atol=1e-5)
    slanted = rotate(torch.ones(1, 3, 16, 16), torch.tensor([45.0]))[0, 0]
    assert slanted[0, 0] == 0
    assert slanted[8, 8] == pytest.approx(1)


def test_solarize_is_pillows() -> None:
    images = noise_images(4, 32)
    ours = view(images, 32, ViewParams(**(vars(WHOLE) | {"solarize": 1.0})), torch.Generator())
    expected = torch.stack([tensor(ImageOps.solarize(pillow(image))) for image in images])
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


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
    span = 2 * math.log(2)
    for draws in (
        (height * width / side**2 - 0.1) / 0.2,
        (width / height).log() / span + 0.5,
        top / (side - height),
        left / (side - width),
    ):
        ranked = draws.sort().values.clamp(0, 1)
        distance = (ranked - (torch.arange(n) + 0.5) / n).abs().max()  # Kolmogorov–Smirnov
        assert distance < 1.95 / math.sqrt(n)  # its 99.9 % point


@pytest.mark.parametrize(
    ("h", "w", "box"),
    [(10, 200, (0, 93, 10, 13)), (200, 10, (93, 0, 13, 10)), (20, 20, (0, 0, 20, 20))],
)
def test_where_no_box_fits_the_central_one_is_taken(
    h: int, w: int, box: tuple[int, int, int, int], generator: Generator
) -> None:
    boxes = random_boxes(50, h, w, (1.0, 1.0), (3 / 4, 4 / 3) if h != w else (1.0, 1.0), generator)
    assert torch.equal(boxes, torch.tensor(box).float().expand(50, 4))


def test_what_is_never_or_always_done(generator: Generator) -> None:
    images = noise_images(8, 16)
    x = images.float() / 255
    assert torch.equal(view(images, 16, WHOLE, generator), x)
    assert torch.equal(view(images, 16, ViewParams(**(vars(WHOLE) | {"flip": 1.0})), generator), x.flip(3))
    always_grey = view(images, 16, ViewParams(**(vars(WHOLE) | {"grey": 1.0})), generator)
    torch.testing.assert_close(always_grey, grey(x).expand(-1, 3, -1, -1))
    blurred = view(images, 16, ViewParams(**(vars(WHOLE) | {"blur": 1.0, "sigma": (1.0, 1.0)})), generator)
    torch.testing.assert_close(blurred, gaussian_blur(x, torch.ones(8), "tenth"))


@pytest.mark.parametrize("name", ["flip", "jitter", "grey", "blur", "solarize"])
def test_a_probability_is_the_share_of_images(name: str, generator: Generator) -> None:
    images = noise_images(1, 8).expand(1000, -1, -1, -1)
    law = {"strengths": (0.4, 0.4, 0.4, 0.1), "sigma": (1.0, 2.0), name: 0.3}
    views = view(images, 8, ViewParams(**(vars(WHOLE) | law)), generator)
    changed = (views - images.float() / 255).abs().amax(dim=(1, 2, 3)) > 1e-4
    assert changed.float().mean().item() == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 1000))


FULL = ViewParams(
    area=(0.2, 1.0), rotation=20.0, jitter=0.8, strengths=(0.8, 0.8, 0.8, 0.2), grey=0.2, blur=0.5, solarize=0.2
)


def test_each_image_gets_its_own_view(generator: Generator) -> None:
    views = view(noise_images(1, 32).expand(16, -1, -1, -1), 16, FULL, generator)
    assert views.shape == (16, 3, 16, 16)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1
    distances = torch.cdist(views.flatten(1), views.flatten(1)) + torch.eye(16)
    assert distances.min() > 0.1


def test_jitter_draws_a_factor_an_image(generator: Generator) -> None:
    law = ViewParams(**(vars(WHOLE) | {"jitter": 1.0, "strengths": (0.4, 0.0, 0.0, 0.0)}))
    factors = Draws(*draw(500, 2, 2, law, generator).unbind(1)).brightness
    assert factors.min() >= 0.6
    assert factors.max() <= 1.4
    ranked = ((factors - 0.6) / 0.8).sort().values
    assert (ranked - (torch.arange(500) + 0.5) / 500).abs().max() < 1.95 / math.sqrt(500)


def test_the_generator_decides_and_nothing_else() -> None:
    images, state = noise_images(4, 20), torch.get_rng_state()
    same, again, other = (view(images, 16, FULL, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(same, again)
    assert not torch.equal(same, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("area", [(0.0, 1.0), (0.5, 0.2), (0.5, 1.1)])
def test_impossible_area_is_named(area: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="area is"):
        ViewParams(area=area)


@pytest.mark.parametrize("name", ["flip", "jitter", "grey", "blur", "solarize"])
def test_impossible_probability_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 1.5, a probability"):
        ViewParams(**(vars(WHOLE) | {name: 1.5}))
