"""checkpoint.pt: what pretraining leaves for the stages after it, plain tensors and their specification."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from models.encoders.encoder import Encoder
from models.encoders.weights import Spec, restore
from pipelines.saving.atomic_files import write_atomically

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Pretrained:
    """One method's trainings. weights: the encoder's of the first seed, the one that is registered."""

    weights: Weights
    spec: Spec
    run_id: str = ""  # of MLflow
    repeats: dict[int, Weights] = field(default_factory=dict)  # further seeds → their encoders
    decoder: Weights = field(default_factory=dict)  # what the method keeps beside the encoder, for pictures

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises OSError, RuntimeError, TypeError or UnpicklingError where it is not such a file."""
        return cls(**torch.load(path, map_location="cpu", weights_only=True))

    def write(self, path: Path) -> None:
        write_atomically(path, vars(self))

    def encoder(self) -> Encoder:
        """The first seed's, in eval mode."""
        return restore(self.spec, self.weights)

    def encoders(self, seed: int) -> dict[int, Encoder]:
        """Seed → encoder, of every training; seed: the first one's."""
        return {each: restore(self.spec, of) for each, of in ({seed: self.weights} | self.repeats).items()}
