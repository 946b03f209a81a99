"""Augmentation: what is drawn for each image, on the CPU, and what is made of it, on the images' device.

`draw` is the only place of chance: a seed means the same views on any device. `augment` is a pure function of the
images and what was drawn.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from models import colour
from models.blur import BlurKernel, gaussian_blur
from models.resample import Filter, resized_crop, resized_crop_bytes, rotate

JITTER = (colour.brightness, colour.contrast, colour.saturation, colour.hue)
ORDERS = torch.tensor(list(permutations(range(4))), dtype=torch.float32)  # (24, 4)
CACHE = 3 * 224 * 224  # values that are augmented at once on a CPU: with what is made of them they fit its cache
LARGE = 64  # px, from where on a CPU resizes bytes


@dataclass(frozen=True)
class ViewParams:
    """The law of one view. Probabilities in [0, 1]; `area` is the share of the image that a crop covers."""

    area: tuple[float, float]
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    filter: Filter = "bicubic"
    flip: float = 0.5
    rotation: float = 0.0  # degrees to either side
    jitter: float = 0.0
    strengths: tuple[float, float, float, float] = (0.0,) * 4  # of brightness, contrast, saturation, hue
    grey: float = 0.0
    blur: float = 0.0
    blur_kernel: BlurKernel = "tenth"
    sigma: tuple[float, float] = (0.1, 2.0)  # of the blur, in pixels
    solarize: float = 0.0

    def __post_init__(self) -> None:
        check_area("area", self.area)
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect is {list(self.aspect)}; allowed: [low, high] with 0 < low <= high")
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma is {list(self.sigma)}; allowed: [low, high] with 0 < low <= high")
        if min(self.strengths) < 0 or self.strengths[3] > 0.5:
            raise ValueError(f"colour strengths are {list(self.strengths)}; allowed: 0 or more, the hue's at most 0.5")
        if self.rotation < 0:
            raise ValueError(f"rotation is {self.rotation}; allowed: 0 or more degrees")
        for name in ("flip", "jitter", "grey", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, a probability; allowed: 0 to 1")


def check_area(name: str, area: tuple[float, float]) -> None:
    """Raises ValueError when this is no range of shares."""
    if not 0 < area[0] <= area[1] <= 1:
        raise ValueError(f"{name} is {list(area)}; allowed: [low, high] with 0 < low <= high <= 1")


class Draws(NamedTuple):
    """The columns of what is drawn, each (n,). What is not to happen is drawn as what changes nothing."""

    top: Tensor  # px
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor  # 0 or 1
    angle: Tensor  # degrees
    brightness: Tensor  # factors, 1 where there is no jitter
    contrast: Tensor
    saturation: Tensor
    hue: Tensor  # share of the circle, 0 where there is no jitter
    first: Tensor  # which of brightness 0, contrast 1, saturation 2, hue 3 comes first
    second: Tensor
    third: Tensor
    fourth: Tensor
    grey: Tensor  # 0 or 1
    sigma: Tensor  # px, 0 where there is no blur
    solarize: Tensor  # 0 or 1


def draw(n: int, height: int, width: int, p: ViewParams, generator: Generator) -> Tensor:
    """float32 (n, 17): what is done to each of n images of this size, in the columns of `Draws`."""
    top, left, crop_height, crop_width = random_boxes(n, height, width, p.area, p.aspect, generator).unbind(1)
    flip = bernoulli(n, p.flip, generator)
    angle = uniform(n, -p.rotation, p.rotation, generator)
    jittered = bernoulli(n, p.jitter, generator)
    factors = [uniform(n, max(0.0, 1 - s), 1 + s, generator) for s in p.strengths[:3]]
    brightness, contrast, saturation = (torch.where(jittered, factor, 1.0) for factor in factors)
    hue = uniform(n, -p.strengths[3], p.strengths[3], generator) * jittered
    first, second, third, fourth = ORDERS[torch.randint(24, (n,), generator=generator)].unbind(1)
    grey = bernoulli(n, p.grey, generator)
    sigma = uniform(n, *p.sigma, generator) * bernoulli(n, p.blur, generator)
    solarize = bernoulli(n, p.solarize, generator)
    columns = Draws(
        top, left, crop_height, crop_width, flip, angle, brightness, contrast, saturation, hue,
        first, second, third, fourth, grey, sigma, solarize,
    )  # fmt: skip
    return torch.stack([column.float() for column in columns], dim=1)


def augment(images: Tensor, draws: Tensor, size: int, p: ViewParams) -> Tensor:
    """uint8 (B, 3, H, W) and draws (B, 17) → views (B, 3, size, size) in [0, 1], in the type of the draws.

    Compiled, or on a GPU, it is one graph over the whole batch, without a wait for the host: each operation is done to
    all images and kept for those that it was drawn for. On a CPU it goes through pieces of the batch that stay in
    cache, does an operation only to the images that it was drawn for and, where images are large and float32 is asked
    for, resizes bytes (a grey level's rounding apart). What is fastest was measured by `benchmarks/views.py`.
    """
    if whole(images):
        return pieces(images, draws, size, p)
    n = max(1, CACHE // (3 * size * size))
    return torch.cat(
        [pieces(i, d, size, p) for i, d in zip(torch.split(images, n), torch.split(draws, n), strict=True)]
    )


def whole(x: Tensor) -> bool:
    return torch.compiler.is_compiling() or x.device.type != "cpu"


def pieces(images: Tensor, draws: Tensor, size: int, p: ViewParams) -> Tensor:
    d = Draws(*draws.unbind(1))
    boxes, flips = draws[:, :4], d.flip > 0
    if not whole(images) and draws.dtype == torch.float32 and max(size, *images.shape[2:]) >= LARGE:
        x = resized_crop_bytes(images, boxes, flips, size, p.filter).to(draws.dtype) / 255
    else:
        x = resized_crop(images.to(draws.dtype) / 255, boxes, flips, size, p.filter)
    if p.rotation:
        x = rotate(x, d.angle)
    if p.jitter:
        x = jitter(x, d, p)
    if p.grey:
        x = only(d.grey > 0, lambda x: colour.grey(x).expand(-1, 3, -1, -1), x)
    if p.blur:
        x = only(d.sigma > 0, lambda x, sigma: gaussian_blur(x, sigma, p.blur_kernel), x, d.sigma)
    if p.solarize:
        x = only(d.solarize > 0, colour.solarize, x)
    return x


def only(chosen: Tensor, operation: Callable[..., Tensor], x: Tensor, *parameters: Tensor) -> Tensor:
    """`operation(x, *parameters)` where `chosen` (B,), x elsewhere."""
    if whole(x):
        return torch.where(chosen[:, None, None, None], operation(x, *parameters), x)
    index = chosen.nonzero()[:, 0]
    if len(index) == 0:
        return x
    if len(index) == len(x):
        return operation(x, *parameters)
    return x.index_copy(0, index, operation(x[index], *(parameter[index] for parameter in parameters)))


def jitter(x: Tensor, d: Draws, p: ViewParams) -> Tensor:
    """Brightness, contrast, saturation and hue, in each image's own order."""
    factors = (d.brightness, d.contrast, d.saturation, d.hue)
    for place in (d.first, d.second, d.third, d.fourth):
        for i, (operation, factor) in enumerate(zip(JITTER, factors, strict=True)):
            if p.strengths[i]:
                chosen = (place == i) & (factor != (0.0 if i == 3 else 1.0))
                x = only(chosen, operation, x, factor[:, None, None, None])
    return x


def view(images: Tensor, size: int, p: ViewParams, generator: Generator) -> Tensor:
    """uint8 images (B, 3, H, W) → one view of each, float32 in [0, 1], (B, 3, size, size)."""
    draws = draw(images.shape[0], images.shape[2], images.shape[3], p, generator)
    return augment(images, draws.to(images.device), size, p)


def uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.empty(n).uniform_(low, high, generator=generator)


def bernoulli(n: int, probability: float, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator) < probability


def random_boxes(
    n: int, h: int, w: int, area: tuple[float, float], aspect: tuple[float, float], generator: Generator
) -> Tensor:
    """Crop boxes (n, 4): top, left, height, width in pixels, by the law of torchvision's RandomResizedCrop.

    All ten tries are drawn at once and the first valid one taken; else the largest central crop in range.
    """
    target = h * w * uniform(n * 10, *area, generator).view(n, 10)
    ratio = uniform(n * 10, math.log(aspect[0]), math.log(aspect[1]), generator).view(n, 10).exp()
    width, height = (target * ratio).sqrt().round(), (target / ratio).sqrt().round()
    valid = (width >= 1) & (width <= w) & (height >= 1) & (height <= h)
    first = valid.int().argmax(dim=1, keepdim=True)
    central_w = min(w, round(h * aspect[1])) if w / h > aspect[1] else w
    central_h = min(h, round(w / aspect[0])) if w / h < aspect[0] else h
    found = valid.any(dim=1)
    width = torch.where(found, width.gather(1, first)[:, 0], central_w)
    height = torch.where(found, height.gather(1, first)[:, 0], central_h)
    top = (torch.rand(n, generator=generator) * (h - height + 1)).floor()
    left = (torch.rand(n, generator=generator) * (w - width + 1)).floor()
    top = torch.where(found, top, ((h - height) / 2).floor())
    left = torch.where(found, left, ((w - width) / 2).floor())
    return torch.stack([top, left, height, width], dim=1)
