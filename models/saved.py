"""Save an encoder as a folder: `weights.safetensors` and `encoder.json`, without pickle.

The model registry keeps such folders. MLflow loads them with `_load_pyfunc`, a name that it requires.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.encoders.encoder import Encoder
from models.encoders.weights import Spec, restore


def save(folder: Path, spec: Spec, weights: Mapping[str, Tensor]) -> None:
    """Write an encoder into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "weights.safetensors")
    (folder / "encoder.json").write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> tuple[Spec, Encoder]:
    """Read the spec and the encoder from a folder."""
    spec: Spec = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    return spec, restore(spec, load_file(folder / "weights.safetensors"))


class Predictor:
    """uint8 images (B, 3, S, S) → embeddings (B, D)."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder

    @torch.inference_mode()
    def predict(self, images: NDArray[np.uint8], params: Any = None) -> NDArray[np.float32]:
        """Called by MLflow. `params` is not used."""
        return self.encoder(torch.from_numpy(images)).numpy()  # type: ignore[no-any-return]


def _load_pyfunc(path: str) -> Predictor:
    return Predictor(load(Path(path))[1])
