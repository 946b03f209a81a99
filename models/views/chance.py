"""Random numbers of n images at once, from a generator on the CPU."""

import math

import torch
from torch import Generator, Tensor


def uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    """float32 (n,), from low to high."""
    return torch.empty(n).uniform_(low, high, generator=generator)


def bernoulli(n: int, probability: float, generator: Generator) -> Tensor:
    """bool (n,), each True with this probability."""
    return torch.rand(n, generator=generator) < probability


def whole_numbers(n: int, probability: float, below: int, generator: Generator) -> Tensor:
    """int64 (n,): with this probability from 1 to below − 1, else 0. Takes no number where the probability is 0."""
    if not probability:
        return torch.zeros(n, dtype=torch.int64)
    return torch.randint(1, below, (n,), generator=generator) * bernoulli(n, probability, generator)


def squares(n: int, probability: float, generator: Generator) -> Tensor:
    """For Cutout (n, 3): row and column in [0, 1], and 1 with this probability, else 0. At 0 it takes no number."""
    if not probability:
        return torch.zeros(n, 3)
    return torch.column_stack([torch.rand(n, 2, generator=generator), bernoulli(n, probability, generator)])


def random_boxes(
    n: int, h: int, w: int, area: tuple[float, float], aspect: tuple[float, float], generator: Generator
) -> Tensor:
    """Crop boxes (n, 4): top, left, height, width in pixels, distributed as those of torchvision's RandomResizedCrop.

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
