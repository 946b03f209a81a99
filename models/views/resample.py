"""Crop, mirror and resize, antialiased as Pillow does, each image with its own box; and rotation."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Filter = Literal["bilinear", "bicubic"]


def interpolation(start: Tensor, step: Tensor, source: int, size: int, kernel: Filter) -> Tensor:
    """Matrices (B, size, source) that resample `size` steps from `start` on, antialiased as in Pillow.

    A step below 0 goes backwards, from the far end: a mirror image.
    """
    pixels = torch.arange(source, dtype=start.dtype, device=start.device)
    center = start[:, None] + (torch.arange(size, device=start.device) + 0.5) * step[:, None]  # (B, size)
    wide = step.abs().clamp(min=1)[:, None]
    d = ((pixels + 0.5) / wide[..., None] - (center / wide)[..., None]).abs_()
    if kernel == "bilinear":
        weights = (1 - d).clamp_(min=0)
    else:  # Keys' cubic with a = −½, twice: u² (u − 1) + 2 v² (1 − 2v), u and v what is left of d to 2 and to 1
        u = (2 - d).clamp_(min=0)
        v = (1 - d).clamp_(min=0)
        weights = u.square().mul_(u.sub_(1)).add_(torch.rsub(v, 1, alpha=2).mul_(v.square_()), alpha=2)
    first, last = start.minimum(end := start + size * step), start.maximum(end)
    inside = (pixels + 0.5 > first[:, None]) & (pixels + 0.5 < last[:, None])
    weights.mul_(inside[:, None].to(weights.dtype))
    return weights.div_(weights.sum(dim=2, keepdim=True))


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply matrices along rows and columns: (B, C, H, W), (B, h, H), (B, w, W) → (B, C, h, w).

    On a GPU float32 goes through its matrix units in half precision: less than half a grey level apart.
    """
    if x.device.type == "cuda" and x.dtype == torch.float32:
        return products(x.half(), rows.half(), columns.half()).float()
    return products(x, rows, columns)


def products(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`separable` in the precision that the tensors have."""
    b, c, h, w = x.shape
    x = x.reshape(b, c * h, w) @ columns.mT
    return rows[:, None] @ x.view(b, c, h, -1)


def resized_crop(x: Tensor, boxes: Tensor, flips: Tensor, size: int, kernel: Filter) -> Tensor:
    """Crop by boxes (B, 4), mirror where `flips`, and resize floats to (B, 3, size, size): two products of matrices."""
    top, left, height, width = boxes.unbind(1)
    left, width = torch.where(flips, left + width, left), torch.where(flips, -width, width)
    rows = interpolation(top, height / size, x.shape[2], size, kernel)
    columns = interpolation(left, width / size, x.shape[3], size, kernel)
    return separable(x, rows, columns).clamp_(0, 1)


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
