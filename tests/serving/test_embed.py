"""A folder becomes a table: every image a row, the same vectors either way, and nothing is done twice."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from serving import ServingError, embed
from serving.client import Client
from serving.core import Encoder
from serving.embed import Direct, Endpoint, Found, make
from serving.promoted import Model
from serving.runtime import Runtime
from tests.serving.conftest import ROOT, MakeArchive, entry, expected, picture, promote, unpacked

N = 30


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


def test_every_image_has_a_row_with_its_vector_or_its_reason(
    photos: Path, model: Model, direct: Direct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "PART", 8)
    monkeypatch.setattr(embed, "TOGETHER", 3)
    out = tmp_path / "vectors.parquet"
    assert make(photos, out, model, direct).endswith("28 embeddings by digits-encoder, version 3; 2 images of no use")
    table = pq.read_table(out)
    rows = table.to_pylist()
    assert [row["path"] for row in rows] == [f"{'a' if i < 20 else 'b/ü'}/{i:03d}.PNG" for i in range(N)]
    for i, row in enumerate(rows):
        if i in (7, 25):
            assert row["embedding"] is None
            assert row["error"].startswith("This image is of no use")
        else:
            np.testing.assert_allclose(row["embedding"], expected(picture(i)[1]), rtol=1e-4, atol=1e-5)
            assert row["error"] is None
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert (about["model"], about["version"], about["sha256"]) == ("digits-encoder", "3", "abc")
    assert [path.name for path in tmp_path.glob("vectors*")] == ["vectors.parquet"]


def test_the_endpoint_gives_the_same_table(
    photos: Path, model: Model, direct: Direct, second: Runtime, tmp_path: Path
) -> None:
    make(photos, tmp_path / "direct.parquet", model, direct)
    make(photos, tmp_path / "endpoint.parquet", model, Endpoint(Client.of(second), "digits-encoder"))
    ours, theirs = (pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("direct", "endpoint"))
    for a, b in zip(ours, theirs, strict=True):
        assert (a["path"], a["error"] is None) == (b["path"], b["error"] is None)
        if a["error"] is None:
            np.testing.assert_allclose(a["embedding"], b["embedding"], rtol=1e-6)


class Counting:
    """Direct, which counts what it is asked for, and stops in the middle."""

    def __init__(self, direct: Direct, stop_after: int = 10**9) -> None:
        self.direct, self.left, self.asked = direct, stop_after, 0

    def __call__(self, files: Sequence[Path]) -> Iterator[Found]:
        for found in self.direct(files):
            if not self.left:
                raise KeyboardInterrupt
            self.left, self.asked = self.left - 1, self.asked + 1
            yield found


@pytest.fixture
def out(photos: Path, model: Model, direct: Direct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The table of a run that was stopped after two parts of eight images and three more."""
    monkeypatch.setattr(embed, "PART", 8)
    out = tmp_path / "vectors.parquet"
    with pytest.raises(KeyboardInterrupt):
        make(photos, out, model, Counting(direct, stop_after=19))
    assert not out.exists()
    return out


def test_a_stopped_run_goes_on_and_a_finished_one_does_nothing(
    photos: Path, model: Model, direct: Direct, out: Path
) -> None:
    make(photos, out, model, again := Counting(direct))
    assert again.asked == N - 16  # two parts were whole
    assert make(photos, out, model, idle := Counting(direct)).endswith("is up to date: 30 images")
    assert idle.asked == 0
    (photos / "a" / "000.PNG").write_bytes(picture(99)[0])
    make(photos, out, model, Counting(direct))
    np.testing.assert_allclose(pq.read_table(out)["embedding"][0].as_py(), expected(picture(99)[1]), rtol=1e-5)


def test_parts_of_another_encoder_are_not_taken_over(photos: Path, model: Model, direct: Direct, out: Path) -> None:
    other = Model(model.name, model.method, "4", model.archive, "def")
    make(photos, out, other, all_of_it := Counting(direct))
    assert all_of_it.asked == N


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_images_is_one_sentence(name: str, model: Model, direct: Direct, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ServingError, match=r"absent cannot be read|empty holds no image"):
        make(tmp_path / name, tmp_path / "out.parquet", model, direct)


def start(*arguments: object, cwd: Path) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "serving.embed", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(line, cwd=cwd, env=environment, stdout=-1, stderr=-1, text=True)


def test_the_command_embeds_by_what_is_promoted(photos: Path, make_archive: MakeArchive, tmp_path: Path) -> None:
    promote(tmp_path, entry("digits-encoder", make_archive()))
    out, err = (running := start(photos, "--out", "v.parquet", cwd=tmp_path)).communicate()
    assert running.returncode == 0, err
    assert out == "v.parquet: 28 embeddings by digits-encoder, version 3; 2 images of no use\n"
    assert err == "embed 30/30 images\n"
    out, err = (running := start(photos, "--out", "v.parquet", "--model", "x", cwd=tmp_path)).communicate()
    assert (running.returncode, out, err) == (1, "", "--model is x; promoted are digits-encoder.\n")
    out, err = (running := start(photos, "--out", "none/v.parquet", cwd=tmp_path / "photos")).communicate()
    assert running.returncode == 1
    assert err.count("\n") == 1


def test_ctrl_c_is_no_traceback(make_archive: MakeArchive, tmp_path: Path) -> None:
    promote(tmp_path, entry("digits-encoder", make_archive()))
    (tmp_path / "many").mkdir()
    os.mkfifo(tmp_path / "many" / "0.png")  # whoever reads it waits
    with (running := start("many", "--out", "v.parquet", cwd=tmp_path)):
        with open(tmp_path / "many" / "0.png", "wb"):  # opens when it is being read
            running.send_signal(signal.SIGINT)
        out, err = running.communicate()
    assert (running.returncode, out) == (130, "")
    assert err.strip() == "stopped; the same command goes on from here"
    assert json.loads((tmp_path / "artifacts/promoted.json").read_text())["champion"] == "simclr"
