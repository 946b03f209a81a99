"""The Python code of the tutorials runs: on a table of embeddings, and on an ONNX file."""

import re
from pathlib import Path

import numpy as np
import pytest

from serving.bulk import table
from tests.serving.conftest import DIM, network, picture

TUTORIALS = Path(__file__).resolve().parents[1] / "docs/tutorials"
Names = dict[str, object]


def snippet(page: str, with_text: str) -> str:
    """The one Python block of a page that has this text."""
    blocks = re.findall(r"^```python\n(.*?)^```", (TUTORIALS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (found,) = (code for code in blocks if with_text in code)
    return str(found)


def ran(page: str, with_text: str) -> Names:
    """What the block has defined."""
    names: Names = {}
    exec(compile(snippet(page, with_text), page, "exec"), names)
    return names


@pytest.fixture
def vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The embeddings of vectors.parquet: 12 cats, 12 dogs and 12 images without a label; one file is broken."""
    kinds = [kind for kind in ("cat", "dog", "unlabelled") for _ in range(12)]
    found = np.random.default_rng(0).normal(size=(36, DIM)).astype(np.float32)
    found[12:24] += 10  # dogs are far from cats, and so are the unlabelled images
    found[24:] += 10
    paths = [f"{kind}/{i:03d}.png" for i, kind in enumerate(kinds)]
    table.write(tmp_path / "vectors.parquet", [*paths, "cat/broken.png"], [*found, "It is damaged."], {})
    monkeypatch.chdir(tmp_path)
    return found


def test_the_table_is_read(vectors: np.ndarray) -> None:
    names = ran("use-the-encoder.md", "read_table")
    np.testing.assert_array_equal(np.asarray(names["vectors"]), vectors)


def test_the_most_similar_photo_is_the_photo_itself(vectors: np.ndarray) -> None:
    nearest = np.asarray(ran("my-own-photos.md", "nearest")["nearest"])
    assert nearest[0] == 0
    assert len(set(nearest.tolist())) == 11


def test_the_classifier_names_the_unlabelled_images(vectors: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    ran("a-few-labels.md", "LogisticRegression")
    assert capsys.readouterr().out.count("dog") == 10


def test_the_onnx_file_is_asked_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := tmp_path / "artifacts/methods/simclr").mkdir(parents=True)
    (images := tmp_path / "data/raw/digits/3").mkdir(parents=True)
    network(folder / "encoder.onnx")
    for seed in range(5):
        (images / f"{seed}.png").write_bytes(picture(seed)[0])
    monkeypatch.chdir(tmp_path)
    names = ran("use-the-encoder.md", "onnxruntime")
    pixels = np.stack([picture(seed)[1].transpose(2, 0, 1) for seed in range(4)])
    np.testing.assert_array_equal(np.asarray(names["images"]), pixels)
    assert np.asarray(names["embeddings"]).shape == (4, DIM)
