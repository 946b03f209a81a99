"""The other augmentations that SimCLR's figure 5 compares: rotation by quarter turns, Sobel filter, noise, Cutout.

They take floats in [0, 1], (B, 3, S, S). The paper and its code do not state the strength of the noise, the scale of
the Sobel filter or the size of the square that Cutout hides, so the constants here are ours.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = 0.5  # the colour of what Cutout hides
NOISE = 0.1  # standard deviation of the noise; black is 0 and white is 1
MASK = 2**32 - 1  # of 32 bits


def quarter_turn(x: Tensor, times: int) -> Tensor:
    """Rotate counter-clockwise by 90 degrees, this many times."""
    return x.rot90(times, (2, 3))


def sobel(x: Tensor) -> Tensor:
    """The length of the gradient of each channel: 0 where it is flat, 1 at a straight edge from black to white or more.

    The border's pixels are repeated.
    """
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    top, middle, bottom = padded[:, :, :-2], padded[:, :, 1:-1], padded[:, :, 2:]
    down = bottom - top  # then smoothed along the rows
    across = top + 2 * middle + bottom
    vertical = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    horizontal = across[..., 2:] - across[..., :-2]
    return torch.hypot(vertical, horizontal).div_(4).clamp_(0, 1)


def gaussian_noise(x: Tensor, seed: Tensor) -> Tensor:
    """Independent normal noise on each value, cut off at 0 and 1. seed (B,): whole numbers below 2²⁴, one per image."""
    noise = normal(seed, x[0].numel()).view_as(x)
    return torch.add(x, noise.to(x.dtype), alpha=NOISE).clamp_(0, 1)


def normal(seed: Tensor, n: int) -> Tensor:
    """Standard normal numbers (B, n) that are a function of the seed (B,): the same on every device."""
    place = scrambled(torch.arange(n, device=seed.device))
    bits = scrambled((place + scrambled(seed.long())[:, None]) & MASK) >> 9  # 23 bits
    return torch.erfinv((bits.to(seed.dtype) + 0.5) / 2**22 - 1) * math.sqrt(2)


def scrambled(x: Tensor) -> Tensor:
    """A hash of 32 bits, one to one (Wellons, hash-prospector): int64 from 0 to 2³² − 1, without overflow."""
    x = ((x >> 16) ^ x) * 0x21F0AAAD & MASK
    x = ((x >> 15) ^ x) * 0x735A2D97 & MASK
    return (x >> 15) ^ x


def cut_out(x: Tensor, draws: Tensor, largest: float) -> Tensor:
    """Cutout (DeVries & Taylor, 2017, arXiv:1708.04552): x with a grey square on each image, in part outside.

    draws (B, 3) in [0, 1]: the middle's row and column, and the side over `largest`. largest: as a share of S.
    """
    if not largest:
        return x
    place = (torch.arange(x.shape[-1], device=x.device, dtype=draws.dtype) + 0.5) / x.shape[-1]  # (S,)
    half = draws[:, 2:] * largest / 2  # (B, 1)
    rows, columns = ((place - draws[:, i : i + 1]).abs() < half for i in (0, 1))  # (B, S)
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], GREY)
