"""Crop, mirror and resize, antialiased as Pillow does, each image with its own box; and rotation."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Filter = Literal["bilinear", "bicubic"]


def interpolation(start: Tensor, length: Tensor, source: int, size: int, kernel: Filter) -> Tensor:
    """Matrices (B, size, source) that resample [start, start + length), antialiased as in Pillow."""
    pixels = torch.arange(source, device=start.device)
    scale = (length / size)[:, None, None]
    centre = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
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
    """Apply matrices along rows and columns: (B, C, H, W), (B, h, H), (B, w, W) → (B, C, h, w).

    On a GPU float32 goes through its matrix units in half precision: less than half a grey level apart.
    """
    if x.device.type == "cuda" and x.dtype == torch.float32:
        return products(x.half(), rows.half(), columns.half()).float()
    return products(x, rows, columns)


def products(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    b, c, h, w = x.shape
    x = x.reshape(b, c * h, w) @ columns.mT
    return rows[:, None] @ x.view(b, c, h, -1)


def resized_crop(x: Tensor, boxes: Tensor, flips: Tensor, size: int, kernel: Filter) -> Tensor:
    """Crop by boxes (B, 4), mirror where `flips`, and resize floats to (B, 3, size, size): two products of matrices."""
    top, left, height, width = boxes.unbind(1)
    rows = interpolation(top, height, x.shape[2], size, kernel)
    columns = interpolation(left, width, x.shape[3], size, kernel)
    columns = torch.where(flips[:, None, None], columns.flip(1), columns)
    return separable(x, rows, columns).clamp(0, 1)


def resized_crop_bytes(images: Tensor, boxes: Tensor, flips: Tensor, size: int, kernel: Filter) -> Tensor:
    """The same on uint8, image by image with torch's own resize: in whole grey levels, as Pillow's.

    On a CPU it is several times as fast where images are large.
    """
    crops = []
    for image, (top, left, height, width), flip in zip(images, boxes.int().tolist(), flips.tolist(), strict=True):
        crop = image[None, :, top : top + height, left : left + width]
        crop = F.interpolate(crop, (size, size), mode=kernel, antialias=True)
        crops.append(crop.flip(3) if flip else crop)
    return torch.cat(crops)


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image counter-clockwise about its centre; zeros come in at the corners."""
    angle = degrees * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
