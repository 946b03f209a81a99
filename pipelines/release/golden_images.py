"""Golden images: a few held-out images and their embeddings by torch. The deployer compares the server with them."""

from pathlib import Path

import numpy as np

from data.shards import Prepared
from models import saved
from models.encoders.encoder import Encoder
from models.evaluation.probe import Array

IMAGES = 8


def write(encoder: Encoder, val: Array, prepared: Prepared, tolerance: float, path: Path) -> None:
    """The first val images and their embeddings by torch, as `serving/rollout/golden_images.py` reads them.

    `tolerance` is the allowed difference, as a share of the largest entry. A lower precision differs by more: the
    tolerance is then twice the difference that is measured here. val: the graph's embeddings of all val images (n, D).
    """
    images = prepared.images(prepared.rows("val")[:IMAGES])
    embeddings = saved.Predictor(encoder).predict(images)
    difference = np.abs(val[: len(images)] - embeddings).max() / np.abs(embeddings).max()
    np.savez(path, images=images, embeddings=embeddings, tolerance=np.float32(max(tolerance, 2 * difference)))
