"""Supervised learning on labelled images: a linear head on the encoder, cross-entropy, label smoothing.

From scratch it is the baseline that uses the labels alone; from a pretrained encoder it is fine-tuning end to end
(He et al., 2022, arXiv:2111.06377, appendix A.2). Label smoothing: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, 2015,
arXiv:1512.00567, section 7.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from models.encoders.encoder import Encoder
from models.method import Baseline
from models.optim import OptimParams
from models.precision import at_least_fp32, full_precision
from models.views.augmentation import ViewParams, draw

UNLABELLED = -1  # the label of an image whose class is not known


@dataclass(frozen=True)
class SupervisedParams:
    """Its augmentation and label smoothing. Raises ValueError when a value is not allowed."""

    batch_size: int  # labelled images per step
    optim: OptimParams  # optimiser and its schedule
    views: ViewParams  # augmentation of the images
    accumulate: int = 1  # parts in which a batch is computed, to save memory
    recompute: bool = False  # compute transformer blocks again in the backward pass: less memory, one more forward pass
    label_smoothing: float = 0.0  # label smoothing ε

    def __post_init__(self) -> None:
        check_training(self.batch_size, self.accumulate, self.label_smoothing)


def check_training(batch_size: int, accumulate: int, label_smoothing: float) -> None:
    """Raises ValueError when a value is not allowed."""
    for name, value in (("batch_size", batch_size), ("accumulate", accumulate)):
        if value < 1:
            raise ValueError(f"{name} is {value}. Allowed: 1 or more")
    if batch_size % accumulate:
        raise ValueError(f"batch_size is {batch_size}. Allowed: a multiple of accumulate, {accumulate}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is {label_smoothing}. Allowed: 0 to below 1")


class Supervised(Baseline):
    """A linear head on the encoder; both are trained."""

    params: SupervisedParams

    def __init__(self, encoder: Encoder, params: SupervisedParams, image_size: int, classes: int):
        super().__init__(params, image_size)
        self.encoder = encoder
        self.head = head(encoder.dim, classes)

    def draw(self, n: int, height: int, width: int, generator: Generator) -> list[Tensor]:
        """One view of n images, and a place for their labels (n,)."""
        return [draw(n, height, width, self.params.views, generator), unlabelled(n)]

    def views(self, images: Tensor, draws: list[Tensor]) -> list[Tensor]:
        """uint8 (B, 3, H, W), draws and labels (B,) → one view (B, 3, S, S), and the labels."""
        return [self.augment(images, draws[0], self.size, self.params.views), draws[1]]

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        """Cross-entropy with smoothed labels of one view (B, 3, S, S) and labels (B,)."""
        x, y = views
        return cross_entropy(self.head(self.encoder(x)), y, self.params.label_smoothing)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) → logits (B, classes), for predictions: in eval mode."""
        return self.head(self.encoder(images))  # type: ignore[no-any-return]


def unlabelled(n: int) -> Tensor:
    """(n,) of UNLABELLED. The training loop replaces them by the labels that it has."""
    return torch.full((n,), UNLABELLED)


def head(dim: int, classes: int) -> nn.Linear:
    """Starts near zero, as in MAE's official fine-tuning, so that the first gradients hardly change the encoder."""
    linear = nn.Linear(dim, classes)
    nn.init.trunc_normal_(linear.weight, std=2e-5)
    nn.init.zeros_(linear.bias)
    return linear


def cross_entropy(logits: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """H(q', p), q' = (1 − ε) q + ε / K, mean over the labelled of logits (B, K), y (B,); 0 where none is labelled."""
    with full_precision(logits):
        total = F.cross_entropy(
            at_least_fp32(logits), y, ignore_index=UNLABELLED, reduction="sum", label_smoothing=label_smoothing
        )
        return total / (y != UNLABELLED).sum().clamp(min=1)


@torch.inference_mode()
def predict(method: nn.Module, images: Tensor) -> Tensor:
    """uint8 (B, 3, S, S) → the likeliest class (B,), in eval mode."""
    return method.eval()(images).argmax(dim=1)  # type: ignore[no-any-return]
