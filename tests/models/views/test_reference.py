"""Whole views against the reference, written out one image at a time with Pillow: two samples, a few statistics.

The reference is what torchvision's transforms and the official codes do, in numpy's floats; Pillow crops and resizes,
and blurs for DINO. (Colours in Pillow's bytes are rounded at every step, which the statistics see.)
"""

import numpy as np
import pytest
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from models.views.augmentation import ViewParams, view
from tests.models.conftest import pillow

SIMCLR = ViewParams(area=(0.08, 1.0), jitter=0.8, strengths=(0.8, 0.8, 0.8, 0.2), grey=0.2, blur=0.5)
DINO = ViewParams(
    area=(0.25, 1.0), jitter=0.8, strengths=(0.4, 0.4, 0.2, 0.1), grey=0.2, blur=0.5, blur_kernel="pillow", solarize=0.2
)
N = 2000  # views of each
GREY = np.array([0.299, 0.587, 0.114])
Pixels = NDArray[np.float64]


def reference(image: Image.Image, size: int, p: ViewParams, rng: Generator) -> Tensor:
    """One view (3, size, size)."""
    box = random_box(image, p, rng)
    if size >= 64:  # large images are resized as bytes
        x = np.array(image.resize((size, size), Image.Resampling.BICUBIC, box=box)) / 255.0
    else:
        planes = [
            plane.convert("F").crop(box).resize((size, size), Image.Resampling.BICUBIC) for plane in image.split()
        ]
        x = np.clip(np.stack([np.array(plane) for plane in planes], axis=2) / 255.0, 0, 1)
    if rng.random() < p.flip:
        x = x[:, ::-1]
    if rng.random() < p.jitter:
        factors = [rng.uniform(max(0, 1 - strength), 1 + strength) for strength in p.strengths[:3]]
        shift = rng.uniform(-p.strengths[3], p.strengths[3])
        for i in rng.permutation(4):
            x = (
                turned(x, shift)
                if i == 3
                else blended(x, (0.0, (x @ GREY).mean(), (x @ GREY)[..., None])[i], factors[i])
            )
    if rng.random() < p.grey:
        x = (x @ GREY)[..., None].repeat(3, axis=2)
    if rng.random() < p.blur:
        sigma = rng.uniform(*p.sigma)
        if p.blur_kernel == "tenth":
            x = convolved(x, sigma)
        else:
            x = (
                np.array(Image.fromarray((x * 255).round().astype(np.uint8)).filter(ImageFilter.GaussianBlur(sigma)))
                / 255.0
            )
    if rng.random() < p.solarize:
        x = np.where(x >= 0.5, 1 - x, x)
    return torch.from_numpy(x.transpose(2, 0, 1).copy()).float()


def blended(x: Pixels, other: Pixels | float, factor: float) -> Pixels:
    return np.clip(factor * x + (1 - factor) * other, 0, 1)


def random_box(image: Image.Image, p: ViewParams, rng: Generator) -> tuple[int, int, int, int]:
    w, h = image.size
    for _ in range(10):
        area, aspect = w * h * rng.uniform(*p.area), np.exp(rng.uniform(*np.log(p.aspect)))
        width, height = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if width <= w and height <= h:
            left, top = int(rng.integers(w - width + 1)), int(rng.integers(h - height + 1))
            return left, top, left + width, top + height
    raise AssertionError("a square image has a box in ten tries, or nearly always")


def turned(x: Pixels, shift: float) -> Pixels:
    """By way of HSV, as in the textbook."""
    r, g, b = x[..., 0], x[..., 1], x[..., 2]
    value, low = x.max(axis=2), x.min(axis=2)
    chroma = np.maximum(value - low, 1e-12)
    sixths = np.select([value == r, value == g], [(g - b) / chroma, 2 + (b - r) / chroma], 4 + (r - g) / chroma)
    h = (sixths / 6 + shift) % 1 * 6
    sector, part = np.floor(h).astype(int) % 6, h - np.floor(h)
    saturation = (value - low) / np.maximum(value, 1e-12)
    p, q, t = value * (1 - saturation), value * (1 - saturation * part), value * (1 - saturation * (1 - part))
    channels = [(value, q, p, p, t, value), (t, value, value, q, p, p), (p, p, t, value, value, q)]
    return np.stack([np.choose(sector, channel) for channel in channels], axis=2)


def convolved(x: Pixels, sigma: float) -> Pixels:
    """With zeros beyond the border."""
    radius = len(x) // 20
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    for axis in (0, 1):
        x = np.apply_along_axis(np.convolve, axis, x, kernel / kernel.sum(), "same")
    return x


def statistics(views: Tensor, originals: Tensor) -> dict[str, Pixels]:
    """Of each view: one number a name."""
    light, whole = views.mean(dim=1), originals.mean(dim=1)
    edges = (light.diff(dim=1).abs().mean(dim=(1, 2)) + light.diff(dim=2).abs().mean(dim=(1, 2))) / 2
    a, b = (v.flatten(1) - v.flatten(1).mean(dim=1, keepdim=True) for v in (light, whole))
    border = torch.cat([light[:, 0], light[:, -1], light[:, :, 0], light[:, :, -1]], dim=1)
    found = {
        "mean": light.mean(dim=(1, 2)),
        "spread": light.std(dim=(1, 2)),
        "saturation": (views.amax(dim=1) - views.amin(dim=1)).mean(dim=(1, 2)),
        "red to blue": (views[:, 0] - views[:, 2]).mean(dim=(1, 2)),
        "green": (views[:, 1] - light).mean(dim=(1, 2)),
        "sharpness": edges / light.std(dim=(1, 2)).clamp(min=1e-3),
        "border": border.mean(dim=1) - light.mean(dim=(1, 2)),
        "left to right": light[:, :, : light.shape[2] // 2].mean(dim=(1, 2)) - light.mean(dim=(1, 2)),
        "correlation": (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-6),
    }
    return {name: values.double().numpy().round(5) for name, values in found.items()}  # a grey view's green is 0


def pictures(n: int, size: int) -> Tensor:
    """uint8 (n, 3, size, size): coloured fields that go over into each other, one edge in each, darker to the left."""
    generator = torch.Generator().manual_seed(0)
    fields = torch.rand(n, 3, 4, 4, generator=generator)
    x = torch.nn.functional.interpolate(fields, (size, size), mode="bicubic", align_corners=True)
    x[:, :, size // 3 : size // 2, size // 4 :] *= torch.rand(n, 3, 1, 1, generator=generator)
    return (x * torch.linspace(0.6, 1.0, size) * 255).clamp(0, 255).byte()


@pytest.mark.parametrize(("p", "size"), [(SIMCLR, 32), (DINO, 32), (SIMCLR, 64), (DINO, 64)])
def test_whole_views_are_as_the_reference_draws_them(p: ViewParams, size: int) -> None:
    images = pictures(20, 40)
    many = images.repeat(N // 20, 1, 1, 1)
    ours = view(many, size, p, torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    theirs = torch.stack([reference(pillow(image), size, p, rng) for image in many])
    originals = torch.nn.functional.interpolate(many.float() / 255, (size, size), mode="bilinear")
    here, there = statistics(ours, originals), statistics(theirs, originals)
    distances = {name: distance(here[name], there[name]) for name in here}
    assert max(distances.values()) < 1.95 * np.sqrt(2 / N), distances  # the 99.9 % point


def distance(a: Pixels, b: Pixels) -> float:
    """Kolmogorov–Smirnov's, of two samples."""
    at = np.sort(np.concatenate([a, b]))
    shares = [np.searchsorted(np.sort(sample), at, side="right") / len(sample) for sample in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())
