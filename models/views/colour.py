"""Colour operations on floats in [0, 1], (B, 3, H, W), each image with its own factor (B, 1, 1, 1).

As in Pillow and torchvision, brightness, contrast and saturation blend with black, the mean grey and
the grey of each pixel; hue is turned in HSV.
"""

import torch
from torch import Tensor

Factor = Tensor | float
GREY = (0.299, 0.587, 0.114)  # ITU-R 601


def grey(x: Tensor) -> Tensor:
    """Luminance (B, 1, H, W)."""
    r, g, b = x.unbind(1)
    return (r * GREY[0]).add(g, alpha=GREY[1]).add(b, alpha=GREY[2])[:, None]


def greyed(x: Tensor) -> Tensor:
    """Luminance in all three channels, (B, 3, H, W)."""
    return grey(x).expand(-1, 3, -1, -1)


def blend(x: Tensor, own: Tensor, pixel: Tensor, mean: Tensor) -> Tensor:
    """Shares of the image itself, of the grey of each pixel and of the mean grey; what the next three do, in one."""
    luminance = grey(x)
    target = luminance * pixel + luminance.mean(dim=(2, 3), keepdim=True) * mean
    return torch.addcmul(target, x, own).clamp_(0, 1)


def brightness(x: Tensor, factor: Factor) -> Tensor:
    """factor 0: black; 1: the image; above 1: brighter, up to white."""
    return (x * factor).clamp_(0, 1)


def contrast(x: Tensor, factor: Factor) -> Tensor:
    """factor 0: the mean grey of the image; 1: the image; above 1: farther from the mean grey."""
    return (x * factor).add_((1 - factor) * grey(x).mean(dim=(2, 3), keepdim=True)).clamp_(0, 1)


def saturation(x: Tensor, factor: Factor) -> Tensor:
    """factor 0: the grey of each pixel; 1: the image; above 1: farther from grey."""
    return (x * factor).add_((1 - factor) * grey(x)).clamp_(0, 1)


def hue(x: Tensor, shift: Factor) -> Tensor:
    """Turn the hue by `shift` of a full circle, keeping HSV's saturation and value.

    In sixths of the circle, with V the largest and C = V − m the range of the channels: the hue is
    h = ± (1 + (g + b − r − m) / C) from red, on the side of the greater of g and b; and the channel whose own hue is d
    away is m + C · clamp(| |d| − 3 | − 1, 0, 1). (No comparison, which is what is slow in torch on a CPU.)
    """
    r, g, b = x.unbind(1)
    low = torch.minimum(torch.minimum(r, g), b)
    chroma = torch.maximum(torch.maximum(r, g), b).sub_(low)
    h = (g + b).sub_(r).sub_(low).div_(chroma.clamp(min=1e-12)).add_(1).copysign_(g - b)[:, None] + 6 * shift
    h.sub_((h / 6).round_(), alpha=6)  # in [−3, 3]
    own = torch.arange(0, 6, 2, dtype=x.dtype, device=x.device)[:, None, None]
    d = h - own  # (B, 3, H, W)
    return d.abs_().sub_(3).abs_().sub_(1).clamp_(0, 1).mul_(chroma[:, None]).add_(low[:, None])


def solarize(x: Tensor) -> Tensor:
    """Invert what is above a half."""
    return torch.minimum(x, 1 - x)
