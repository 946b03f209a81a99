"""Augmentation: whole batches, on the images' device, every image with its own parameters.

Parameters are drawn on the CPU from the generator that is passed in, so that a seed means the same views on
any device. The order of the colour operations is drawn once a batch; for one image it is uniform.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Filter = Literal["bilinear", "bicubic"]
GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow and torchvision


@dataclass(frozen=True)
class ViewParams:
    """The law of one view. Probabilities in [0, 1]; `area` is the share of the image that a crop covers."""

    area: tuple[float, float]
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    filter: Filter = "bicubic"
    flip: float = 0.5
    rotation: float = 0.0  # degrees to either side
    jitter: float = 0.0
    strengths: tuple[float, float, float, float] = (
        0.0,
        0.0,
        0.0,
        0.0,
    )  # of brightness, contrast, saturation, hue
    grey: float = 0.0
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)  # of the blur, in pixels
    solarize: float = 0.0

    def __post_init__(self) -> None:
        check_area("area", self.area)
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect is {list(self.aspect)}; allowed: [low, high] with 0 < low <= high")
        if not 0 <= self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma is {list(self.sigma)}; allowed: [low, high] with 0 <= low <= high")
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


def view(images: Tensor, size: int, p: ViewParams, generator: Generator) -> Tensor:
    """uint8 images (B, 3, H, W) → one view of each, float in [0, 1], (B, 3, size, size)."""
    b, device = images.shape[0], images.device
    boxes = random_boxes(b, images.shape[2], images.shape[3], p.area, p.aspect, generator)
    flips = bernoulli(b, p.flip, generator)
    x = resized_crop(images.float() / 255, boxes.to(device), flips.to(device), size, p.filter)
    if p.rotation:
        x = rotate(x, uniform(b, -p.rotation, p.rotation, generator).to(device))
    if p.jitter:
        x = jitter(x, p, generator)
    if p.grey:
        x = torch.where(image_wise(bernoulli(b, p.grey, generator), x), grey(x), x)
    if p.blur:
        sigma = uniform(b, *p.sigma, generator)
        sigma = torch.where(bernoulli(b, p.blur, generator), sigma, 0.0)
        x = gaussian_blur(x, sigma.to(device))
    if p.solarize:
        x = torch.where(image_wise(bernoulli(b, p.solarize, generator), x) & (x >= 0.5), 1 - x, x)
    return x


def uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.empty(n).uniform_(low, high, generator=generator)


def bernoulli(n: int, probability: float, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator) < probability


def image_wise(values: Tensor, x: Tensor) -> Tensor:
    """(B,) → (B, 1, 1, 1) on the device of x."""
    return values.to(x.device).view(-1, 1, 1, 1)


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


def interpolation(start: Tensor, length: Tensor, source: int, size: int, kernel: Filter) -> Tensor:
    """Matrices (B, size, source) that resample [start, start + length), antialiased as in Pillow."""
    pixels = torch.arange(source, device=start.device)
    scale = (length / size).view(-1, 1, 1)
    centre = start.view(-1, 1, 1) + (torch.arange(size, device=start.device).view(1, -1, 1) + 0.5) * scale
    d = ((pixels + 0.5 - centre) / scale.clamp(min=1)).abs()
    if kernel == "bilinear":
        weights = (1 - d).clamp(min=0)
    else:  # Keys' cubic with a = -0.5
        inner = (1.5 * d - 2.5) * d * d + 1
        outer = ((-0.5 * d + 2.5) * d - 4) * d + 2
        weights = torch.where(d < 1, inner, torch.where(d < 2, outer, 0.0))
    inside = (pixels >= start[:, None]) & (pixels < (start + length)[:, None])
    weights = weights * inside[:, None]
    return weights / weights.sum(dim=2, keepdim=True)


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply matrices along rows and columns: (B, 3, H, W), (B, h, H), (B, w, W) → (B, 3, h, w)."""
    return rows[:, None] @ x @ columns[:, None].transpose(2, 3)


def resized_crop(x: Tensor, boxes: Tensor, flips: Tensor, size: int, kernel: Filter) -> Tensor:
    """Crop (B, 4), mirror where `flips`, and resize to (B, 3, size, size)."""
    top, left, height, width = boxes.unbind(1)
    rows = interpolation(top, height, x.shape[2], size, kernel)
    columns = interpolation(left, width, x.shape[3], size, kernel)
    columns = torch.where(flips[:, None, None], columns.flip(1), columns)
    return separable(x, rows, columns).clamp(0, 1)


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image counter-clockwise about its centre; zeros come in at the corners."""
    angle = degrees * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def jitter(x: Tensor, p: ViewParams, generator: Generator) -> Tensor:
    """Brightness, contrast, saturation and hue in random order, for a share `p.jitter` of the images."""
    b = x.shape[0]
    chosen = bernoulli(b, p.jitter, generator)
    for i in torch.randperm(4, generator=generator).tolist():
        strength = p.strengths[i]
        if not strength:
            continue
        low = -strength if i == 3 else max(0.0, 1 - strength)
        high = strength if i == 3 else 1 + strength
        identity = 0.0 if i == 3 else 1.0
        factor = torch.where(chosen, uniform(b, low, high, generator), identity)
        x = (brightness, contrast, saturation, hue)[i](x, image_wise(factor, x))
    return x


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor).clamp(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(grey(x).mean(dim=(2, 3), keepdim=True), x, factor).clamp(0, 1)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(grey(x), x, factor).clamp(0, 1)


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` of a full circle, keeping HSV's saturation and value."""
    value, most = x.max(dim=1, keepdim=True)
    chroma = value - x.min(dim=1, keepdim=True).values
    after, before = x.roll(-1, dims=1), x.roll(1, dims=1)  # the next channel (R→G→B→R), and the one before
    position = 2 * most + ((after - before) / chroma.clamp(min=1e-12)).gather(1, most)  # in [-1, 5): R 0, G 2, B 4
    position = position + 6 * shift
    n = torch.tensor([5.0, 3.0, 1.0], device=x.device).view(1, 3, 1, 1)
    k = (n + position) % 6  # HSV → RGB in closed form
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def grey(x: Tensor) -> Tensor:
    """Luminance (B, 1, H, W)."""
    r, g, b = x.unbind(1)
    return (GREY[0] * r + GREY[1] * g + GREY[2] * b)[:, None]


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each square image with its own sigma (0: not); kernel a tenth of the side, borders reflected."""
    size = x.shape[-1]
    radius = max(1, size // 20)
    offsets = torch.arange(-radius, radius + 1, device=x.device)
    kernel = (-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2).exp()  # (B, 2r+1)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    period = max(1, 2 * size - 2)
    source = (torch.arange(size, device=x.device)[:, None] + offsets).abs() % period
    source = torch.minimum(source, period - source)  # reflect
    matrix = x.new_zeros(x.shape[0], size, size)
    matrix.scatter_add_(2, source.expand(len(x), -1, -1), kernel[:, None].expand(-1, size, -1))
    return separable(x, matrix, matrix)
