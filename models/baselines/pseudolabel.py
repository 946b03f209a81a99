"""Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks.

Lee, 2013, ICML workshop on challenges in representation learning.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.baselines.supervised import UNLABELLED, Supervised, SupervisedParams, cross_entropy


@dataclass(frozen=True)
class PseudoLabelParams(SupervisedParams):
    """The parameters of supervised training, and the weight of the pseudo-labels. batch_size: n labelled images."""

    accumulate: Literal[1] = 1  # always 1: labelled and unlabelled images share a batch and its batch norm
    unlabelled: int = 8  # unlabelled images per labelled image, n' / n; the paper has 256 / 32
    alpha: float = 3.0  # final weight α_f of the unlabelled loss
    start: float = 0.1  # share of the run after which unlabelled images count, T₁
    full: float = 0.6  # share of the run after which their weight is alpha, T₂

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unlabelled < 1:
            raise ValueError(f"unlabelled is {self.unlabelled}. Allowed: 1 or more")
        if self.alpha < 0:
            raise ValueError(f"alpha is {self.alpha}. Allowed: 0 or more")
        if not 0 <= self.start < self.full <= 1:
            raise ValueError(f"start is {self.start}, full {self.full}. Allowed: 0 <= start < full <= 1")


class PseudoLabel(Supervised):
    """Supervised training, in which an unlabelled image has the class that the network finds likeliest."""

    params: PseudoLabelParams

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        """Of labelled and unlabelled images (n + n', 3, S, S), and their labels (n + n',); labels are smoothed, not the
        pseudo-labels."""
        x, y = views
        logits = self.head(self.encoder(x))  # (n + n', K); one pass, so batch norm sees both kinds
        labelled = cross_entropy(logits, y, self.params.label_smoothing)
        return labelled + self.weight(progress) * of_pseudo_labels(logits, y)  # eq. 15

    def weight(self, progress: float) -> float:
        """α(t), eq. 16: 0 until T₁, then linear, α_f from T₂."""
        p = self.params
        return p.alpha * min(1.0, max(0.0, (progress - p.start) / (p.full - p.start)))


def of_pseudo_labels(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with the likeliest class (eq. 14) of logits (B, K), mean over the unlabelled of y (B,)."""
    pseudo = logits.detach().argmax(dim=1)
    return cross_entropy(logits, torch.where(y == UNLABELLED, pseudo, UNLABELLED))
