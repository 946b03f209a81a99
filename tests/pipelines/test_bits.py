"""The same images in 8, 12 and 16 bits, from the folder to the vector."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from data.decoding.decode import Preprocess
from data.prepare import prepare
from data.shards import Prepared
from models.encoders.resnet import ResNetParams
from models.evaluation import probe
from tests.data import wide

IMAGES, SIDE = 200, 96
Way = Callable[[NDArray[np.uint8]], NDArray[Any]]
# Pillow writes those of 8 bits.
WAYS: dict[str, Way] = {
    "8 bits": lambda x: x,
    "12 bits": lambda x: np.rint(x / 255 * 4095).astype(np.uint16),
    "16 bits": lambda x: x.astype(np.uint16) * 257,
    "16 bits, a part filled": lambda x: 684 + x.astype(np.uint16) * 2,
}


def photographs(colours: bool) -> list[NDArray[np.uint8]]:
    """Pieces of two photographs that come with scikit-learn, each with black and white in it."""
    photos: list[NDArray[np.uint8]] = load_sample_images().images
    rng, found = np.random.default_rng(0), []
    for n in range(IMAGES):
        photo = photos[n % 2]
        top, left = (rng.integers(0, end - SIDE) for end in photo.shape[:2])
        piece = photo[top : top + SIDE, left : left + SIDE].copy()
        piece[:2, :SIDE], piece[-2:, :SIDE] = 0, 255
        found.append(piece if colours else piece[..., 1])
    return found


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ResNetParams("resnet10", 16, "small").build(32, (0.5,) * 3, (0.25,) * 3).eval()


def vectors(folder: Path, images: list[NDArray[Any]], network: torch.nn.Module) -> tuple[Any, NDArray[np.float32]]:
    """The range that was measured, and the embeddings of all images, by name."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    for n, image in enumerate(images):
        path = raw / f"{n:03d}.png"
        if image.dtype == np.uint8:
            Image.fromarray(image).save(path)
        else:
            path.write_bytes(wide.png(image))
    made = prepare(raw, folder / "prepared", name="bits", preprocess=Preprocess(32), val=0.1, test=0.1,
                   max_bad_fraction=0.0, labels=False, seed=0, workers=1)  # fmt: skip
    prepared = Prepared(folder / "prepared")
    order = np.argsort([prepared.path(row) for row in range(len(images))])
    pixels = torch.from_numpy(prepared.images(order))
    return made.preprocess.range, probe.extract(network, [pixels], torch.device("cpu"))


@pytest.mark.parametrize("colours", [False, True])
def test_the_same_images_have_the_same_vectors_whatever_their_bits(
    tmp_path: Path, network: torch.nn.Module, colours: bool
) -> None:
    images, found = photographs(colours), {}
    for name, way in WAYS.items():
        found[name] = vectors(tmp_path / name, [way(image) for image in images], network)
    assert {name: of for name, (of, _) in found.items()} == {
        "8 bits": None,
        "12 bits": (0.0, 4095.0),
        "16 bits": (0.0, 65535.0),
        "16 bits, a part filled": (684.0, 1194.0),
    }
    _, expected = found["8 bits"]
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    for _, of in found.values():
        assert ((of / np.linalg.norm(of, axis=1, keepdims=True) * unit).sum(axis=1)).min() >= 0.999
