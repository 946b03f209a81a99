"""Colour operations on floats in [0, 1], (B, 3, H, W), each image with its own factor (B, 1, 1, 1).

The laws are Pillow's and torchvision's: brightness, contrast and saturation blend with black, the mean grey and
the grey of each pixel; hue is turned in HSV.
"""

import torch
from torch import Tensor

GREY = (0.299, 0.587, 0.114)  # ITU-R 601


def grey(x: Tensor) -> Tensor:
    """Luminance (B, 1, H, W)."""
    r, g, b = x.unbind(1)
    return (r * GREY[0]).add(g, alpha=GREY[1]).add(b, alpha=GREY[2])[:, None]


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor).clamp(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor + (1 - factor) * grey(x).mean(dim=(2, 3), keepdim=True)).clamp(0, 1)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor + (1 - factor) * grey(x)).clamp(0, 1)


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` of a full circle, keeping HSV's saturation and value.

    With V the largest and C = V − the smallest channel, and the hue h in sixths of the circle, the channels are
    V − C · clamp(2 − d, 0, 1), d the distance on the circle from h to the channel's opposite: 3, 5 and 1.
    """
    r, g, b = x.unbind(1)
    value = torch.maximum(torch.maximum(r, g), b)
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    h = torch.where(value == r, g - b, torch.where(value == g, b - r, r - g)) / chroma.clamp(min=1e-12)
    h = h + torch.where(value == r, 0.0, torch.where(value == g, 2.0, 4.0)) + 6 * shift[:, 0]
    channels = []
    for opposite in (3, 5, 1):
        d = h - opposite
        d = (d - 6 * (d / 6).round()).abs()
        channels.append(value - chroma * (2 - d).clamp(0, 1))
    return torch.stack(channels, dim=1)


def solarize(x: Tensor) -> Tensor:
    """Invert what is 0.5 or more."""
    return torch.where(x >= 0.5, 1 - x, x)
