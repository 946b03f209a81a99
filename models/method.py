"""What the pipeline asks of a method: its parameters, its step, and its texts for people.

A method implements all abstract members; a hook that it does not override does nothing. Shapes: B images, H × W px.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Generator, Tensor, nn

from models.diagnosis import Diagnosis, Row
from models.encoders.encoder import Encoder, EncoderParams
from models.encoders.vit import ViT
from models.optim import OptimParams
from models.views.augmentation import augment

NO_BLOCKS = "false for an encoder without transformer blocks, such as a ResNet"


@dataclass(frozen=True)
class MethodParams:
    """The params that every pretraining method has; a method adds its own. Raises ValueError for values not allowed."""

    encoder: EncoderParams  # network to train
    epochs: int  # passes through the training images
    batch_size: int  # images per step, over all processes
    optim: OptimParams  # optimiser and its schedule
    accumulate: int = 1  # parts in which a batch is computed, to save memory
    recompute: bool = False  # compute transformer blocks again in the backward pass: less memory, one more forward pass

    @property
    def divisible(self) -> bool:
        """Whether a batch may be computed in parts."""
        return True

    def faults(self, checks: Sequence[Row], now: Row) -> Iterator[Diagnosis]:
        """What only this method suffers from, by the rows that have its signals, and by their newest medians."""
        yield from ()

    def crops(self, size: int) -> list[tuple[str, int, int]]:
        """The views of an image that a backbone is trained on: (params key of their side, side in px, how many).

        size: of the stored images, px.
        """
        return [("prepare.size", size, 1)]

    def sides(self, size: int) -> dict[str, int]:
        """Params key → side of the views that it sets, px."""
        return {key: side for key, side, count in self.crops(size) if count}

    def seen(self, size: int) -> float:
        """Images that go through the backbone per image that is read: all views, weighted by their area."""
        return sum(count * side**2 for _, side, count in self.crops(size)) / size**2


class Method(nn.Module, ABC):
    """A network to train: views of images, and a loss of them. `encoder` is kept after training."""

    encoder: Encoder

    def __init__(self, params: Any, image_size: int):
        super().__init__()
        self.params = params
        self.size = image_size  # px of a view's side
        self.augment: Callable[..., Tensor] = augment  # or the same compiled

    @abstractmethod
    def draw(self, n: int, height: int, width: int, generator: Generator) -> list[Tensor]:
        """All random numbers of a step on n images; the first axis of each tensor is n."""

    @abstractmethod
    def views(self, images: Tensor, draws: list[Tensor]) -> list[Tensor]:
        """uint8 (B, 3, H, W) and their draws → the inputs of the loss. A pure function."""

    @abstractmethod
    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        """The mean loss over the batch of all processes. progress: of the run, from 0 to 1."""

    def before_step(self, progress: float) -> None:
        """Between the gradient and the optimiser."""

    def after_step(self, progress: float) -> None:
        """Called after the optimiser."""

    def after_epoch(self) -> None:
        """Called after the last step of an epoch of pretraining."""


class Pretraining(Method):
    """A method that learns from images alone."""

    TITLE: ClassVar[str]  # its name in text
    COLOURS: ClassVar[tuple[str, str]]  # in charts on a light and on a dark page, contrast 4.5 or more
    MARKER: ClassVar[str]  # in charts, matplotlib's
    KEPT: ClassVar[tuple[str, ...]] = ()  # prefixes of weights that checkpoint.pt keeps beside the encoder
    WHOLE: ClassVar[tuple[type[nn.Module], ...]] = ()  # its modules that are each compiled as one graph

    PARAMS: ClassVar[type[MethodParams]]  # of its section in params.yaml

    def __init__(self, encoder: Encoder, params: Any, image_size: int):
        """encoder: what is trained, in place."""
        super().__init__(params, image_size)

    @abstractmethod
    def signals(self, views: list[Tensor], progress: float) -> dict[str, Tensor]:
        """Its health figures on views of held-out images, without labels: in eval mode, of this process."""


class Masking(Pretraining):
    """A method that hides patches and predicts them: its reconstructions can be shown. params: with mask_ratio."""

    encoder: ViT

    @abstractmethod
    def noise(self, n: int, generator: Generator) -> Tensor:
        """Of n images (n, N): its order says what is masked."""

    @abstractmethod
    def split(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Noise (B, N) → indices of the visible patches (B, n), and the order (B, N) that puts them first."""

    @abstractmethod
    def reconstruct(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prediction and target (B, N, P²·3) of images (B, 3, S, S), and what of them is masked (B, N)."""


class Baseline(Method):
    """A baseline that learns from labels: the last of its draws, int64 (n,), `supervised.UNLABELLED` where unknown.

    Called on images (B, 3, S, S) it gives logits (B, classes): in eval mode.
    """
