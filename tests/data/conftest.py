"""Folders of small images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.decoding.decode import Preprocess
from data.prepare import prepare
from data.shards import Prepared


def write_image(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> None:
    """A PNG of noise; the same seed and size give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """40 images of 8 × 8 in two classes: train 32, val 4, test 4."""
    root = tmp_path_factory.mktemp("prepared")
    for number in range(40):
        write_image(root / "raw" / ("cat" if number % 2 else "dog") / f"{number}.png", number)
    prepare(
        root / "raw",
        root / "out",
        name="noise",
        preprocess=Preprocess(8),
        val=0.1,
        test=0.1,
        max_bad_fraction=0.0,
        labels=True,
        seed=0,
        workers=1,
    )
    return Prepared(root / "out")
