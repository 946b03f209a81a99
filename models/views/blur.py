"""Gaussian blur as in the official code of each method, as a banded matrix along each axis.

"tenth" is SimCLR's (TensorFlow): a Gaussian whose kernel is a tenth of the side, zeros beyond the border, which darkens
it. "pillow" is DINO's: Pillow's GaussianBlur, not cut, the border's pixels repeated.
"""

import math
from typing import Literal

import torch
from torch import Tensor

BlurKernel = Literal["tenth", "pillow"]
BLOCK = 32  # rows of a banded matrix that are multiplied at once


def gaussian_blur(x: Tensor, sigma: Tensor, kernel: BlurKernel, most: float = 2.0) -> Tensor:
    """Blur each square image (B, C, S, S) with its own sigma (B,), which is above 0 and at most `most`, in pixels."""
    size = x.shape[-1]
    if kernel == "tenth":
        matrix, reach = tenth(sigma, size), size // 20
    else:
        matrix, reach = pillow(sigma, size, most), 3 * box_reach(most)
    return banded(matrix, banded(matrix, x, reach), reach, columns=True)


def tenth(sigma: Tensor, size: int) -> Tensor:
    """(B,) → (B, S, S): exp(−d² / 2σ²) up to d = S // 20, with sum 1; below 20 px that is one pixel: nothing changes.

    So it is in SimCLR's data_util.py: the radius is (S // 10) / 2, rounded down.
    """
    d = distances(sigma, size)
    weights = (-0.5 * (d / sigma[:, None]) ** 2).exp() * (d <= size // 20)
    return toeplitz(weights / weights.sum(dim=1, keepdim=True))


def pillow(sigma: Tensor, size: int, most: float) -> Tensor:
    """(B,) → (B, S, S): three box filters, whose last pixels have a part of the weight so that the variance is σ².

    Gwosdek et al., Theoretical foundations of Gaussian convolution by extended box filtering, 2011. Each of the three
    repeats the border's pixels again, as in Pillow, so that near the border this is no convolution.
    """
    variance = sigma[:, None] ** 2 / 3
    whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()  # l, the radius of pixels with all their weight (B, 1)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    part = part / (6 * (variance - (whole + 1) ** 2))  # α, the weight of those at l + 1
    total = 2 * (whole + part) + 1
    d = distances(sigma, size)
    box = toeplitz(((d <= whole) + part * (d == whole + 1)) / total)
    i = torch.arange(size, device=sigma.device)
    outside = (whole - i + part) * (i <= whole) / total  # weight beyond the first pixel (B, S)
    box = torch.cat([box[..., :1] + outside[..., None], box[..., 1:]], dim=2)
    box = torch.cat([box[..., :-1], box[..., -1:] + outside.flip(1)[..., None]], dim=2)
    box = box[:, None]
    return banded(box[:, 0], banded(box[:, 0], box, box_reach(most)), box_reach(most))[:, 0]


def box_reach(sigma: float) -> int:
    """l + 1 of one box."""
    return math.floor((math.sqrt(4 * sigma**2 + 1) - 1) / 2) + 1


def distances(sigma: Tensor, size: int) -> Tensor:
    """(2S − 1,): S − 1 … 0 … S − 1."""
    return torch.arange(1 - size, size, device=sigma.device).abs().to(sigma.dtype)


def toeplitz(weights: Tensor) -> Tensor:
    """Weights of distances −(S − 1) … S − 1 (B, 2S − 1), symmetric → matrices (B, S, S)."""
    return weights.unfold(1, (weights.shape[1] + 1) // 2, 1).flip(1)


def banded(matrix: Tensor, x: Tensor, reach: int, columns: bool = False) -> Tensor:
    """Matrices (B, S, S), zero farther than `reach` from the diagonal, applied along rows or columns of (B, C, S, S).

    Block by block, so that little that is zero is multiplied.
    """
    size = x.shape[-1]
    parts = []
    for start in range(0, size, BLOCK):
        inside = slice(max(0, start - reach), min(size, start + BLOCK + reach))
        block = matrix[:, None, start : start + BLOCK, inside]
        parts.append(x[..., inside] @ block.mT if columns else block @ x[..., inside, :])
    return torch.cat(parts, dim=3 if columns else 2)
