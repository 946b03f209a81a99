"""Normalisation as part of the encoder, so that it travels with the weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """uint8 or float-in-[0, 1] images (B, 3, H, W) → zero mean, unit variance a channel."""

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
