"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations.

Chen, Kornblith, Norouzi, Hinton, 2020, arXiv:2002.05709.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from models.encoder import Encoder, EncoderParams
from models.optim import OptimParams
from models.views import ViewParams, view


@dataclass(frozen=True)
class SimCLRParams:
    encoder: EncoderParams
    epochs: int
    batch_size: int  # N
    optim: OptimParams
    area: tuple[float, float] = (0.08, 1.0)
    flip: float = 0.5
    rotation: float = 0.0  # degrees; none in the paper
    strength: float = 1.0  # s of the colour jitter (appendix A)
    grey: float = 0.2
    blur: float = 0.5
    temperature: float = 0.5  # τ
    head_layers: Literal[2, 3] = 2
    head_hidden: int = 2048
    head_dim: int = 128  # of z

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; allowed: above 0")
        _ = self.views  # a law that is impossible is named now

    @property
    def views(self) -> ViewParams:
        s = self.strength
        return ViewParams(
            area=self.area,
            flip=self.flip,
            rotation=self.rotation,
            jitter=0.8,
            strengths=(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s),
            grey=self.grey,
            blur=self.blur,
        )


class SimCLR(nn.Module):
    def __init__(self, encoder: Encoder, params: SimCLRParams, image_size: int):
        super().__init__()
        self.params = params
        self.size = image_size
        self.encoder = encoder  # f
        self.head = projection(encoder.dim, params.head_hidden, params.head_dim, params.head_layers)  # g

    def views(self, images: Tensor, generator: Generator) -> list[Tensor]:
        """uint8 (B, 3, H, W) → two views t(x), t'(x), each (B, 3, S, S)."""
        return [view(images, self.size, self.params.views, generator) for _ in range(2)]

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        z = self.head(self.encoder(torch.cat(views)))  # (2N, d); one pass, so batch norm sees both views
        return nt_xent(z[: len(z) // 2], z[len(z) // 2 :], self.params.temperature)

    def after_step(self, progress: float) -> None:
        pass


def projection(dim: int, hidden: int, out: int, layers: int) -> nn.Sequential:
    """g: linear maps, each with batch norm, ReLU between; the last norm has no offset (official code)."""
    widths = [dim] + [hidden] * (layers - 1)
    head = nn.Sequential()
    for a, b in pairwise(widths):
        head.extend([nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU(inplace=True)])
    last = nn.BatchNorm1d(out)
    last.register_parameter("bias", None)
    return head.extend([nn.Linear(widths[-1], out, bias=False), last])


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy, eq. 1, averaged over all 2N positive pairs.

    z1, z2: (N, d), row i of one being the positive of row i of the other; each has 2N − 2 negatives.
    """
    with torch.autocast(z1.device.type, enabled=False):  # similarities need more than bf16's 8 bits
        z = F.normalize(torch.cat([z1, z2]).to(torch.promote_types(z1.dtype, torch.float32)), dim=1)  # (2N, d)
        similarity = z @ z.T / temperature  # (2N, 2N)
        similarity.fill_diagonal_(float("-inf"))  # 1[k ≠ i]
        n = z1.shape[0]
        positive = torch.arange(2 * n, device=z.device).roll(n)
        return F.cross_entropy(similarity, positive)
