"""What the pipeline asks of an encoder: its parameters, and a network from images to vectors.

A new encoder is one file beside this one, with a subclass of each class, and one entry in `ENCODERS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.encoders.normalize import PUBLISHED, Normalization, Normalize


@dataclass(frozen=True)
class EncoderParams(ABC):
    """The params that every encoder has; a kind of encoder adds its own. Raises ValueError as `allow` does."""

    BATCH_NORM: ClassVar[bool] = False  # whether an image's vector in training depends on the others of its batch
    BLOCKS: ClassVar[bool] = False  # whether it has transformer blocks, which allow recomputing and stochastic depth

    arch: str  # architecture
    init: str | None = field(default=None, kw_only=True)  # weights to start from: a file, a folder, a version
    normalize: Normalization = field(default="auto", kw_only=True)  # mean and std; auto: the weights', else the data's

    def build(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> "Encoder":
        """A freshly initialised encoder (from torch's global generator).

        image_size: side in px. mean, std: of the data set, one number per channel of images in [0, 1].
        """
        return self.network(image_size, *PUBLISHED.get(self.normalize, (mean, std)))

    @abstractmethod
    def network(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> "Encoder":
        """The same; mean and std are those that hold."""

    def check_side(self, key: str, side: int) -> None:  # noqa: B027 - most encoders take every side
        """Raises ValueError when images of this side, in px, cannot be encoded. key: its parameter in params.yaml."""


class Encoder(nn.Module, ABC):
    """uint8 or float-in-[0, 1] images (B, 3, H, W) → features (B, dim)."""

    WHOLE: ClassVar[tuple[type[nn.Module], ...]] = ()  # modules that are each compiled as one graph
    LAYOUT: ClassVar[torch.memory_format] = torch.contiguous_format  # the layout in which it runs fastest

    dim: int
    normalize: Normalize

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Normalises the images and encodes them."""

    def bf16_pays(self, side: int) -> bool:
        """Whether training steps on a CPU are faster in bf16, for views of this side in px (`hardware.precision`)."""
        return False

    def regrid(self, tensors: dict[str, Tensor]) -> list[str]:
        """Adapt weights for another image size to this encoder, in place. Returns phrases that say what was done."""
        return []


def allow(holds: bool, key: str, value: object, allowed: str) -> None:
    """Raises ValueError, which names the key, its value and what is allowed, unless the condition holds."""
    if not holds:
        raise ValueError(f"{key} is {value}. Allowed: {allowed}")
