"""Golden images: what torch makes of a few held-out images, for the deployer to compare the server with."""

from pathlib import Path

import numpy as np

from data.shards import Prepared
from models import saved
from models.encoder import Encoder

IMAGES = 8


def write(encoder: Encoder, prepared: Prepared, tolerance: float, path: Path) -> None:
    """The first val images and their embeddings by torch, as `serving/golden.py` reads them.

    `tolerance` is the difference that is allowed, as a share of the largest entry.
    """
    images = prepared.images(prepared.rows("val")[:IMAGES])
    np.savez(path, images=images, embeddings=saved.Predictor(encoder).predict(images), tolerance=np.float32(tolerance))
