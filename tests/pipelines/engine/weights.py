"""Weights of an encoder that was trained on other data."""

import torch
from torch import Tensor

from models.encoders.encoder import EncoderParams

OTHERS = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)  # mean and std of the data that the weights were trained on


def weights(params: EncoderParams, size: int = 16) -> dict[str, Tensor]:
    torch.manual_seed(7)
    return params.build(size, *OTHERS).state_dict()


def bare(params: EncoderParams, size: int = 16) -> dict[str, Tensor]:
    return {k: v for k, v in weights(params, size).items() if not k.startswith("normalize.")}
