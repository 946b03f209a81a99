"""checkpoint.pt: the result of pretraining for later stages, as plain tensors and their specification."""

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
    """The training runs of one method. weights: the encoder of the first seed, which is registered."""

    weights: Weights
    spec: Spec
    run_id: str = ""  # of MLflow
    repeats: dict[int, Weights] = field(default_factory=dict)  # further seeds → their encoders
    kept: Weights = field(default_factory=dict)  # SimCLR's projection head, MAE's decoder: of the first seed
    repeats_kept: dict[int, Weights] = field(default_factory=dict)  # the same of further seeds

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises OSError, RuntimeError, TypeError or UnpicklingError when it is no such file."""
        return cls(**torch.load(path, map_location="cpu", weights_only=True))

    def write(self, path: Path) -> None:
        write_atomically(path, vars(self))

    def encoder(self) -> Encoder:
        """The encoder of the first seed, in eval mode."""
        return restore(self.spec, self.weights)

    def encoders(self, seed: int) -> dict[int, Encoder]:
        """Seed → encoder, for every training run. seed: that of the first run."""
        return {each: restore(self.spec, of) for each, of in ({seed: self.weights} | self.repeats).items()}
