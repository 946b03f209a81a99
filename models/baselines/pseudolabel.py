"""Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks.

Lee, 2013, ICML workshop on challenges in representation learning.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from models.baselines.supervised import UNLABELLED, check_training, cross_entropy, head, unlabelled
from models.encoders.encoder import Encoder
from models.optim import OptimParams
from models.views.augmentation import ViewParams, augment, draw


@dataclass(frozen=True)
class PseudoLabelParams:
    batch_size: int  # n labelled images
    optim: OptimParams
    views: ViewParams
    accumulate: Literal[1] = 1  # labelled and unlabelled images share a batch, and its batch norm
    recompute: bool = False  # transformer blocks again in the backward pass: less memory, one more forward pass
    unlabelled: int = 8  # n' / n; 256 / 32 in the paper
    label_smoothing: float = 0.0  # of the labels, not of the pseudo-labels
    alpha: float = 3.0  # α_f
    start: float = 0.1  # T₁ as a fraction of the run
    full: float = 0.6  # T₂

    def __post_init__(self) -> None:
        check_training(self.batch_size, self.accumulate, self.label_smoothing)
        if self.unlabelled < 1:
            raise ValueError(f"unlabelled is {self.unlabelled}; allowed: 1 or more")
        if self.alpha < 0:
            raise ValueError(f"alpha is {self.alpha}; allowed: 0 or more")
        if not 0 <= self.start < self.full <= 1:
            raise ValueError(f"start is {self.start}, full {self.full}; allowed: 0 <= start < full <= 1")


class PseudoLabel(nn.Module):
    def __init__(self, encoder: Encoder, params: PseudoLabelParams, image_size: int, classes: int):
        super().__init__()
        self.params = params
        self.size = image_size
        self.augment = augment
        self.encoder = encoder
        self.head = head(encoder.dim, classes)

    def draw(self, n: int, height: int, width: int, generator: Generator) -> list[Tensor]:
        """One view of n images, and a place for their labels (n,)."""
        return [draw(n, height, width, self.params.views, generator), unlabelled(n)]

    def views(self, images: Tensor, draws: list[Tensor]) -> list[Tensor]:
        """uint8 (B, 3, H, W), draws and labels (B,) → one view (B, 3, S, S), and the labels."""
        return [self.augment(images, draws[0], self.size, self.params.views), draws[1]]

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        x, y = views
        logits = self.head(self.encoder(x))  # (n + n', K); one pass, so batch norm sees both kinds
        labelled = cross_entropy(logits, y, self.params.label_smoothing)
        return labelled + self.weight(progress) * of_pseudo_labels(logits, y)  # eq. 15

    def before_step(self, progress: float) -> None:
        pass

    def after_step(self, progress: float) -> None:
        pass

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) → logits (B, classes), for predictions: in eval mode."""
        return self.head(self.encoder(images))  # type: ignore[no-any-return]

    def weight(self, progress: float) -> float:
        """α(t), eq. 16: 0 until T₁, then linear, α_f from T₂."""
        p = self.params
        return p.alpha * min(1.0, max(0.0, (progress - p.start) / (p.full - p.start)))


def of_pseudo_labels(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with the likeliest class (eq. 14) of logits (B, K), mean over the unlabelled of y (B,)."""
    pseudo = logits.detach().argmax(dim=1)
    return cross_entropy(logits, torch.where(y == UNLABELLED, pseudo, UNLABELLED))
