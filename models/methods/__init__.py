"""The three methods, the controls that learn from labels, and all that the training loop knows of them."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor

from models.baselines.fixmatch import FixMatch, FixMatchParams
from models.baselines.pseudolabel import PseudoLabel, PseudoLabelParams
from models.baselines.supervised import Supervised, SupervisedParams
from models.encoders import encoder as encoders
from models.encoders.encoder import Encoder
from models.methods.dino import DINO, DINOParams
from models.methods.mae import MAE, MAEParams
from models.methods.simclr import SimCLR, SimCLRParams

MethodParams = SimCLRParams | MAEParams | DINOParams
METHODS: dict[str, Callable[..., "Pretraining"]] = {"simclr": SimCLR, "mae": MAE, "dino": DINO}
ControlParams = SupervisedParams | PseudoLabelParams | FixMatchParams
CONTROLS: dict[str, Callable[..., "Control"]] = {
    "supervised": Supervised,
    "pseudolabel": PseudoLabel,
    "fixmatch": FixMatch,
}


class Method(Protocol):
    augment: Callable[..., Tensor]  # models.views.augmentation.augment, or the same compiled

    @property
    def encoder(self) -> Encoder: ...  # what survives pretraining

    def draw(self, n: int, height: int, width: int, generator: Generator) -> list[Tensor]: ...  # first axis n
    def views(self, images: Tensor, draws: list[Tensor]) -> list[Tensor]: ...  # uint8 (B, 3, H, W) → pure
    def loss(self, views: list[Tensor], progress: float) -> Tensor: ...  # mean over the batch of all processes
    def before_step(self, progress: float) -> None: ...  # between gradient and optimiser
    def after_step(self, progress: float) -> None: ...


class Pretraining(Method, Protocol):
    """A method that learns from images alone, and what can be seen of it without labels."""

    def signals(self, views: list[Tensor], progress: float) -> dict[str, Tensor]: ...  # in eval mode, of this process


class Control(Method, Protocol):
    """A method that learns from labels: the last of its draws, int64 (n,), `supervised.UNLABELLED` where unknown."""

    def __call__(self, images: Tensor) -> Tensor: ...  # (B, 3, S, S) → logits (B, classes), in eval mode


def build(
    name: str, params: MethodParams, image_size: int, mean: Sequence[float], std: Sequence[float], seed: int
) -> Pretraining:
    """A method with a freshly initialised encoder; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = encoders.build(params.encoder, image_size, mean, std)
        return METHODS[name](encoder, params, image_size)


def control(name: str, encoder: Encoder, params: ControlParams, image_size: int, classes: int, seed: int) -> Control:
    """A control over an encoder, which it trains in place; the same seed gives the same head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CONTROLS[name](encoder, params, image_size, classes)
