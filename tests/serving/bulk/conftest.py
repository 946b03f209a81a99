"""A folder of images and a model that embeds them."""

from pathlib import Path

import pytest

from serving.embed import Direct
from serving.host.promoted import Model
from serving.worker.encoder import Encoder
from tests.serving.bulk.embedding import N
from tests.serving.conftest import picture, unpacked


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Thirty images in two folders, one of them cut short, one no image, and a text beside them."""
    folder = tmp_path / "photos"
    for i in range(N):
        path = folder / ("a" if i < 20 else "b/ü") / f"{i:03d}.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes({7: picture(7)[0][:-30], 25: b"words"}.get(i, picture(i)[0]))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model("digits-encoder", "simclr", "3", tmp_path / "encoder.mar", "abc")


@pytest.fixture
def direct(tmp_path: Path) -> Direct:
    (tmp_path / "unpacked").mkdir()
    return Direct(Encoder(unpacked(tmp_path / "unpacked"), threads=2))
