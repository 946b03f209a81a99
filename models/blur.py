"""Gaussian blur by the two laws of the official codes, each as a matrix along an axis.

"tenth" is SimCLR's (TensorFlow): a Gaussian cut at a tenth of the side, zeros beyond the border, which it darkens.
"pillow" is DINO's: Pillow's GaussianBlur, not cut, the border's pixels repeated.
"""

from typing import Literal

import torch
from torch import Tensor

from models.resample import separable

BlurKernel = Literal["tenth", "pillow"]


def gaussian_blur(x: Tensor, sigma: Tensor, kernel: BlurKernel) -> Tensor:
    """Blur each square image (B, C, S, S) with its own sigma (B,) in pixels."""
    matrix = (tenth if kernel == "tenth" else pillow)(sigma, x.shape[-1])
    return separable(x, matrix, matrix)


def tenth(sigma: Tensor, size: int) -> Tensor:
    """(B,) → (B, size, size). exp(−d² / 2σ²) up to d = size / 20, at least 1; its sum inside the image is 1."""
    d = torch.arange(size, device=sigma.device)
    weights = (-0.5 * (d / sigma[:, None]) ** 2).exp()  # (B, size)
    weights = torch.where(d <= max(1, size // 20), weights, 0.0)
    weights = weights / (2 * weights.sum(dim=1, keepdim=True) - weights[:, :1])  # both sides, the middle once
    return weights[:, (d[:, None] - d).abs()]


def pillow(sigma: Tensor, size: int) -> Tensor:
    """(B,) → (B, size, size). Three box filters, whose ends have a fraction of the weight so that the variance is σ².

    Gwosdek et al., Theoretical foundations of Gaussian convolution by extended box filtering, 2011. Each of the three
    repeats the border's pixels anew, as Pillow does, so that near it this is no convolution.
    """
    variance = (sigma**2 / 3)[:, None, None]
    whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()  # l, the radius
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    part = part / (6 * (variance - (whole + 1) ** 2))  # α, the weight of the pixels at l + 1
    i = torch.arange(size, device=sigma.device)
    d = (i[:, None] - i).abs()
    box = torch.where(d <= whole, 1.0, torch.where(d == whole + 1, part, 0.0))
    outside = (whole - i[:, None] + part) * (i[:, None] <= whole)  # weight beyond the first pixel, (B, size, 1)
    last = torch.zeros_like(d[:1]).index_fill(1, i[-1:], 1)  # (1, size)
    box = box + outside * last.flip(1) + outside.flip(1) * last
    box = box / (2 * (whole + part) + 1)
    return box @ box @ box
