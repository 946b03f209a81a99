"""Normalisation as part of the encoder, so that it travels with the weights."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Normalization = Literal["auto", "dataset", "imagenet", "half"]  # auto: as the weights say, otherwise as the data set
PUBLISHED = {  # mean and std with which public weights were trained
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


class Normalize(nn.Module):
    """uint8 or float-in-[0, 1] images (B, 3, H, W) → zero mean and unit variance per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))  # (3, 1, 1)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).clamp(min=1e-3).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.uint8:
            x = x.to(self.mean.dtype) / 255
        return (x - self.mean) / self.std
