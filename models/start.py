"""Create a method or a baseline with fresh weights; the same seed gives the same weights."""

from collections.abc import Sequence

import torch

from models.encoders.encoder import Encoder
from models.method import Baseline, MethodParams, Pretraining
from models.methods import BASELINES, METHODS, BaselineParams


def method(
    name: str, params: MethodParams, image_size: int, mean: Sequence[float], std: Sequence[float], seed: int
) -> Pretraining:
    """A method with a freshly initialised encoder; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = params.encoder.build(image_size, mean, std)
        return METHODS[name](encoder, params, image_size)


def baseline(name: str, encoder: Encoder, params: BaselineParams, image_size: int, classes: int, seed: int) -> Baseline:
    """A baseline over an encoder, which it trains in place; the same seed gives the same head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BASELINES[name](encoder, params, image_size, classes)
