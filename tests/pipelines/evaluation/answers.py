"""Scores of given accuracies, with predictions that have them."""

import zlib

import numpy as np

from pipelines.evaluation.scores import How, Predictions, Score

IMAGES = 1000


def score(
    who: str,
    how: How,
    labels: str,
    seed: int,
    sample: int,
    accuracy: float,
    val: float | None = None,
    images: int = IMAGES,
) -> Score:
    """Which images an approach finds hard depends on its name, so that two of them err independently."""
    order = np.random.default_rng(zlib.crc32(f"{who} {how}".encode())).permutation(images)

    def predicted(percent: float) -> Predictions:
        right = order < round(percent * images / 100)
        return Predictions(right.astype(np.uint8), np.ones(images, np.uint8))

    val = accuracy if val is None else val
    return Score(who, how, labels, seed, sample, accuracy, val, {"test": predicted(accuracy), "val": predicted(val)})
