"""Golden images: what torch makes of a few held-out images, for the deployer to compare the server with."""

from pathlib import Path

import numpy as np

from data.shards import Prepared
from models import saved
from models.encoders.encoder import Encoder
from models.evaluation.probe import Array

IMAGES = 8


def write(encoder: Encoder, val: Array, prepared: Prepared, tolerance: float, path: Path) -> None:
    """The first val images and their embeddings by torch, as `serving/rollout/golden_images.py` reads them.

    `tolerance` is the difference that is allowed, as a share of the largest entry: twice what the graph has here where
    that is more, since a lower precision differs by more. val: the graph's embeddings of all val images (n, D).
    """
    images = prepared.images(prepared.rows("val")[:IMAGES])
    embeddings = saved.Predictor(encoder).predict(images)
    difference = np.abs(val[: len(images)] - embeddings).max() / np.abs(embeddings).max()
    np.savez(path, images=images, embeddings=embeddings, tolerance=np.float32(max(tolerance, 2 * difference)))
