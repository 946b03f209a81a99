"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations.

Chen, Kornblith, Norouzi, Hinton, 2020, arXiv:2002.05709.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from models import parallel, signals
from models.diagnosis import Diagnosis, Row, percent, undertrained
from models.encoders.encoder import Encoder, allow
from models.method import NO_BLOCKS, MethodParams, Pretraining
from models.precision import at_least_fp32, full_precision
from models.views.augmentation import ViewParams, draw

SAME = 0.98, 0.01  # trivial task: top-1 above, the embedding's alignment below
POINT = -0.5  # complete collapse: uniformity of the embedding
EVEN = 0.98  # loss over ln(2N − 1): uniform collapse where τ allows no less or views lie together, else undertrained
AS_IT_IS = ViewParams(area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0)  # the whole image


@dataclass(frozen=True)
class SimCLRParams(MethodParams):
    """Its augmentations, projection head and temperature, by the paper's names. batch_size is N."""

    accumulate: Literal[1] = 1  # always 1: NT-Xent contrasts the whole batch, which cannot be computed in parts
    area: tuple[float, float] = (0.08, 1.0)  # share of the image that a crop covers, from lowest to highest
    flip: float = 0.5  # probability of a horizontal flip
    rotation: float = 0.0  # largest rotation to either side, degrees; the paper has none
    strength: float = 1.0  # strength s of the colour jitter (appendix A)
    grey: float = 0.2  # probability of turning a view grey
    blur: float = 0.5  # probability of a blur
    quarter_turn: float = 0.0  # probability of a rotation by 90, 180 or 270 degrees, as in figure 5
    sobel: float = 0.0  # probability of a Sobel filter, as in figure 5
    noise: float = 0.0  # probability of Gaussian noise, as in figure 5
    cutout: float = 0.0  # probability of Cutout, as in figure 5: a grey square of half the side, in part outside
    one_branch: bool = False  # augment one view only and leave the other as it is, as in figure 5
    temperature: float = 0.5  # temperature τ of the loss
    head_layers: Literal[0, 1, 2, 3] = 2  # layers of the projection head; 1: linear; 0: no head, z = h
    head_hidden: int | None = None  # width of the head's hidden layers; null: as wide as the features
    head_dim: int = 128  # length of the projection z, where there is a head

    def __post_init__(self) -> None:
        allow(self.batch_size > 1, "batch_size", self.batch_size, "2 or more: one image has no negatives")
        allow(self.temperature > 0, "temperature", self.temperature, "a number above 0")
        allow(not self.recompute or self.encoder.BLOCKS, "recompute", "true", NO_BLOCKS)
        _ = self.views  # augmentation settings that are impossible are named now

    @property
    def divisible(self) -> bool:
        return False

    def crops(self, size: int) -> list[tuple[str, int, int]]:
        return [("prepare.size", size, 2)]

    @property
    def views(self) -> ViewParams:
        """T of both views (appendix A), or of one with `one_branch`."""
        s = self.strength
        return ViewParams(
            area=self.area,
            flip=self.flip,
            rotation=self.rotation,
            jitter=0.8,
            strengths=(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s),
            grey=self.grey,
            blur=self.blur,
            quarter_turn=self.quarter_turn,
            sobel=self.sobel,
            noise=self.noise,
            cutout=self.cutout,
        )

    @property
    def branches(self) -> list[ViewParams]:
        """Of each of the two views: t, t' ~ T, or t alone and the identity (section 3.1)."""
        return [self.views, AS_IT_IS if self.one_branch else self.views]

    def faults(self, checks: Sequence[Row], now: Row) -> Iterator[Diagnosis]:
        top_1, apart, spread = now["top_1"], now["embedding_alignment"], now["embedding_uniformity"]
        loss, relative = now["held_out_loss"], now["relative_loss"]
        if top_1 > SAME[0] and apart < SAME[1]:
            because = (
                f"The two views of an image are almost the same: {percent(top_1)} of the views find their partner."
            )
            change = f"lower simclr.area (now {list(self.area)}) or raise simclr.strength (now {self.strength})."
            yield Diagnosis("trivial task", because, f"Augment more: {change}")
        if spread > POINT:
            could = 8 / self.head_dim - 4 if self.head_layers else -4
            because = f"All embeddings lie in one place: their uniformity is {spread:.2f} (spread evenly: {could:.2f})."
            yield Diagnosis("complete collapse", because, f"Lower simclr.optim.lr (now {self.optim.lr}).")
        if relative > EVEN:
            because = f"SimCLR does no better than a random guess: its loss is {percent(relative)} of a guess's loss."
            least = 1 - relative / loss / self.temperature  # of a guess's ln(2N − 1), at this τ
            if least > EVEN or apart < 1:
                change = f"Lower simclr.temperature (now {self.temperature}; try 0.1 to 0.5)."
                yield Diagnosis("uniform collapse", because, change)
            else:
                yield undertrained("simclr", self.epochs, self.optim.lr, because)


class SimCLR(Pretraining):
    """Two views of each image, whose projections z are to find each other among those of the whole batch."""

    PARAMS = SimCLRParams
    TITLE, COLOURS, MARKER = "SimCLR", ("#0b5cad", "#6cb4f5"), "o"
    KEPT = ("head",)

    params: SimCLRParams

    def __init__(self, encoder: Encoder, params: SimCLRParams, image_size: int):
        super().__init__(encoder, params, image_size)
        self.encoder = encoder  # f
        hidden = params.head_hidden or encoder.dim
        self.head = projection(encoder.dim, hidden, params.head_dim, params.head_layers)  # g

    def draw(self, n: int, height: int, width: int, generator: Generator) -> list[Tensor]:
        """t, t' ~ T for n images (section 2.2)."""
        return [draw(n, height, width, p, generator) for p in self.params.branches]

    def views(self, images: Tensor, draws: list[Tensor]) -> list[Tensor]:
        """uint8 (B, 3, H, W) → two views t(x), t'(x), each (B, 3, S, S)."""
        return [self.augment(images, d, self.size, p) for d, p in zip(draws, self.params.branches, strict=True)]

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        """NT-Xent of the projections of two views, each (B, 3, S, S)."""
        z = self.head(self.encoder(torch.cat(views)))  # (2N, d); one pass, so batch norm sees both views
        return nt_xent(z[: len(z) // 2], z[len(z) // 2 :], self.params.temperature)

    def signals(self, views: list[Tensor], progress: float) -> dict[str, Tensor]:
        """How it does on the views of N held-out images, without labels."""
        z = signals.unit(self.head(self.encoder(torch.cat(views))))
        z1, z2 = z.chunk(2)
        logits, positive = contrast(z, z, 0, self.params.temperature)
        loss = F.cross_entropy(logits, positive)
        return {
            "held_out_loss": loss,
            "relative_loss": loss / math.log(len(logits) - 1),  # 1: every view is as likely
            "top_1": (logits.argmax(dim=1) == positive).double().mean(),  # the positive is the nearest
            "embedding_alignment": signals.alignment(z1, z2),
            "embedding_uniformity": signals.uniformity(z1),
            "embedding_rank": signals.effective_rank(z1),
        }


def projection(dim: int, hidden: int, out: int, layers: int) -> nn.Sequential:
    """g: linear maps, each with batch norm, ReLU between; start and the last norm without offset as officially.

    Without layers z = h.
    """
    if not layers:
        return nn.Sequential()
    widths = [dim] + [hidden] * (layers - 1)
    head = nn.Sequential()
    for a, b in pairwise(widths):
        head.extend([nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU(inplace=True)])
    last = nn.BatchNorm1d(out)
    last.register_parameter("bias", None)
    head.extend([nn.Linear(widths[-1], out, bias=False), last])
    for m in head:
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=0.01)
    return head


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy, eq. 1, averaged over all 2N positive pairs.

    z1, z2: (n, d), row i of one being the positive of row i of the other; each has 2N − 2 negatives, where N = n or,
    over several processes, the n of all: then the mean over the processes is the loss of the whole batch.
    """
    n, first = z1.shape[0], parallel.rank() * z1.shape[0]
    with full_precision(z1):  # similarities need more than bf16's 8 bits
        z = F.normalize(at_least_fp32(torch.cat([z1, z2])), dim=1)  # (2n, d)
        every = torch.cat([parallel.gather(z[:n]), parallel.gather(z[n:])])  # (2N, d)
        return F.cross_entropy(*contrast(z, every, first, temperature))


def contrast(z: Tensor, every: Tensor, first: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Similarities over τ (2n, 2N), and where each row's positive is (2n,).

    z: (2n, d), two views of n images, of length 1; every: (2N, d), of all images, these from place `first` on.
    """
    n = len(z) // 2
    own = torch.arange(first, first + n, device=z.device)  # where these rows stand among the first N
    itself = torch.cat([own, own + len(every) // 2])
    similarity = z @ every.T / temperature
    return similarity.scatter(1, itself[:, None], float("-inf")), itself.roll(n)  # 1[k ≠ i]
