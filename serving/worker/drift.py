"""Detect drift: compare live embeddings with a sketch of the training images' embeddings.

The distance is the maximum mean discrepancy, MMD (Gretton et al., 2012, equation 2), with a Gaussian kernel, its mean
embeddings by random Fourier features (Rahimi & Recht, 2007): the distance of two means. The sketch holds no image and
no embedding, and travels in the archive.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

WINDOW = 200  # embeddings
FREQUENCIES = 256
TRIALS = 1000  # windows of images that have not drifted: the alarm is above all of them
MOST = 2000  # rows from which the kernel's width is taken


@dataclass(frozen=True)
class Sketch:
    """Of training embeddings (N, D). limit: squared MMD of a window, above which it is an alarm."""

    mean: Floats  # (D,)
    scale: Floats  # (D,)
    frequencies: Floats  # (D, F)
    phases: Floats  # (F,)
    reference: Floats  # (F,)
    window: int
    limit: float

    def features(self, embeddings: Floats) -> Floats:
        """(B, D) → (B, F): their inner products are the kernel's values, on average over frequencies."""
        z = (embeddings - self.mean) / self.scale
        return np.asarray(np.sqrt(2 / len(self.phases)) * np.cos(z @ self.frequencies + self.phases), np.float32)

    def distance(self, mean: Floats) -> float:
        """Squared MMD of a window whose features have this mean (F,)."""
        return float(np.square(mean - self.reference).sum())

    def save(self, path: Path) -> None:
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        with np.load(path, allow_pickle=False) as file:
            found = {field.name: file[field.name] for field in fields(cls)}
        return cls(**found | {"window": int(found["window"]), "limit": float(found["limit"])})


def sketch(train: Floats, fresh: Floats, window: int = WINDOW, seed: int = 0) -> Sketch:
    """Of embeddings of training images (N, D); `fresh` (M, D) are of images like them that were not trained on."""
    generator = np.random.default_rng(seed)
    mean, scale = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-6)
    z = (generator.permutation(train)[:MOST] - mean) / scale
    half = len(z) // 2
    width = float(np.median(np.linalg.norm(z[:half] - z[half : 2 * half], axis=1))) or 1.0
    draft = Sketch(
        mean.astype(np.float32),
        scale.astype(np.float32),
        (generator.normal(size=(train.shape[1], FREQUENCIES)) / width).astype(np.float32),
        generator.uniform(0, 2 * np.pi, FREQUENCIES).astype(np.float32),
        np.zeros(FREQUENCIES, np.float32),
        window,
        0.0,
    )
    reference, other = draft.features(train).mean(axis=0), draft.features(fresh)
    rows = generator.integers(0, len(fresh), (TRIALS, window))
    limit = max(float(np.square(other[row].mean(axis=0) - reference).sum()) for row in rows)
    return Sketch(draft.mean, draft.scale, draft.frequencies, draft.phases, reference, window, limit)


class Window:
    """The last embeddings that came, as a sliding window. None of them is kept, only their features."""

    def __init__(self, of: Sketch) -> None:
        self.of, self.seen = of, 0
        self.rows = np.zeros((of.window, len(of.phases)), np.float32)

    def add(self, embeddings: Floats) -> None:
        """(B, D), the oldest first."""
        new = self.of.features(embeddings[-self.of.window :])
        places = (self.seen + np.arange(len(new))) % self.of.window
        self.rows[places] = new
        self.seen += len(new)

    @property
    def distance(self) -> float | None:
        """Squared MMD to the training images; None until the window is full."""
        return self.of.distance(self.rows.mean(axis=0)) if self.seen >= self.of.window else None
