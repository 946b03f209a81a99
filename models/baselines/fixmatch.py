"""FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence.

Sohn, Berthelot, Li, Zhang, Carlini, Cubuk, Kurakin, Zhang, Raffel, 2020, arXiv:2001.07685.
"""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from models.baselines.supervised import check_training, cross_entropy, head, unlabelled
from models.encoders.encoder import Encoder
from models.method import Baseline
from models.optim import OptimParams
from models.precision import at_least_fp32, full_precision
from models.views.augmentation import ViewParams, draw
from models.views.distortion import cut_out


@dataclass(frozen=True)
class FixMatchParams:
    """Its augmentations, threshold and weights, by the paper's symbols. Raises ValueError for a wrong value."""

    batch_size: int  # labelled images per step, B
    optim: OptimParams  # optimiser and its schedule
    weak: ViewParams  # weak augmentation α: flip and crop
    strong: ViewParams  # strong augmentation A, before Cutout
    accumulate: Literal[1] = 1  # always 1: labelled and unlabelled images share a batch and its batch norm
    recompute: bool = False  # compute transformer blocks again in the backward pass: less memory, one more forward pass
    unlabelled: int = 7  # unlabelled images per labelled image, μ
    cutout: float = 0.5  # largest side of the square that Cutout hides, as a share of the image's side
    threshold: float = 0.95  # confidence τ from which a pseudo-label counts
    weight: float = 1.0  # weight λ_u of the unlabelled loss
    momentum: float = 0.999  # momentum of the averaged weights, which make the predictions

    def __post_init__(self) -> None:
        check_training(self.batch_size, self.accumulate, 0.0)
        if self.unlabelled < 1:
            raise ValueError(f"unlabelled is {self.unlabelled}. Allowed: 1 or more")
        if self.weight < 0:
            raise ValueError(f"weight is {self.weight}. Allowed: 0 or more")
        for name in ("cutout", "threshold", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}. Allowed: 0 to 1")


class FixMatch(Baseline):
    """The first of every 1 + μ parts of a batch holds the labelled images, the others the unlabelled."""

    params: FixMatchParams

    def __init__(self, encoder: Encoder, params: FixMatchParams, image_size: int, classes: int):
        super().__init__(params, image_size)
        self.student = nn.Sequential(encoder, head(encoder.dim, classes))
        self.average = copy.deepcopy(self.student).requires_grad_(False)

    @property
    def encoder(self) -> Encoder:  # type: ignore[override]
        """The averaged one, which predicts."""
        return self.average[0]  # type: ignore[return-value]

    def draw(self, n: int, height: int, width: int, generator: Generator) -> list[Tensor]:
        """The weak view of n images, the strong one, its square (n, 3) for `cut_out`, a place for their labels (n,)."""
        drawn = [draw(n, height, width, p, generator) for p in (self.params.weak, self.params.strong)]
        return [*drawn, torch.rand(n, 3, generator=generator), unlabelled(n)]

    def views(self, images: Tensor, draws: list[Tensor]) -> list[Tensor]:
        """uint8 (B + μB, 3, H, W), draws and labels → α(x), α(u) (B + μB, 3, S, S), A(u) (μB, 3, S, S), labels."""
        p = self.params
        b = len(images) // (1 + p.unlabelled)
        weak = self.augment(images, draws[0], self.size, p.weak)
        strong = self.augment(images[b:], draws[1][b:], self.size, p.strong)
        return [weak, cut_out(strong, draws[2][b:], p.cutout), draws[3]]

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        """ℓ_s + λ_u ℓ_u (section 2.2) of what `views` made."""
        weak, strong, y = views
        logits = self.student(torch.cat([weak, strong]))  # one pass, so batch norm sees all views
        of_weak, of_strong = logits[: len(weak)], logits[len(weak) :]
        labelled = cross_entropy(of_weak, y)  # ℓ_s, eq. 3
        return labelled + self.params.weight * consistency(of_weak[-len(strong) :], of_strong, self.params.threshold)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Average the weights. Batch norm's statistics are averages already, so they are copied."""
        own, average = self.student, self.average
        torch._foreach_lerp_(list(average.parameters()), list(own.parameters()), 1 - self.params.momentum)
        torch._foreach_copy_(list(average.buffers()), list(own.buffers()))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) → logits (B, classes) of the averaged weights, for predictions: in eval mode."""
        return self.average(images)  # type: ignore[no-any-return]


def consistency(weak: Tensor, strong: Tensor, threshold: float) -> Tensor:
    """ℓ_u, eq. 4: cross-entropy of A(u) with the likeliest class of α(u), where that is at least τ likely.

    weak, strong: logits (μB, K) of the same images. The mean is over all of them, including those below τ.
    """
    with full_precision(weak):
        q, pseudo = at_least_fp32(weak.detach()).softmax(dim=1).max(dim=1)  # (μB,) each
        each = F.cross_entropy(at_least_fp32(strong), pseudo, reduction="none")
        return (each * (q >= threshold)).mean()
