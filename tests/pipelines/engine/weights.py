"""Weights of an encoder that was trained on other data."""

import torch
from torch import Tensor

from models.encoders import encoder as encoders
from models.encoders.resnet import ResNetParams
from models.encoders.vit import ViTParams

OTHERS = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)  # mean and std of the data that the weights were trained on


def weights(params: ResNetParams | ViTParams, size: int = 16) -> dict[str, Tensor]:
    torch.manual_seed(7)
    return encoders.build(params, size, *OTHERS).state_dict()


def bare(params: ResNetParams | ViTParams, size: int = 16) -> dict[str, Tensor]:
    return {k: v for k, v in weights(params, size).items() if not k.startswith("normalize.")}
