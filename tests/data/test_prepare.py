"""A raw folder becomes a prepared one: what is kept, what is set aside, what is said."""

import csv
import hashlib
import io
import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data import DataError
from data.decoding.decode import Preprocess
from data.prepare import prepare
from data.shards import Manifest, Prepared
from tests.data.conftest import write_image

OPTIONS: dict[str, Any] = {
    "name": "noise",
    "preprocess": Preprocess(6),
    "val": 0.1,
    "test": 0.2,
    "max_bad_fraction": 0.5,
    "labels": True,
    "seed": 0,
    "workers": 2,
}


def run(root: Path, **options: Any) -> Manifest:
    return prepare(root / "raw", root / "out", **OPTIONS | options)


def fill(raw: Path, n: int, first: int = 0, size: tuple[int, int] = (8, 8)) -> None:
    for number in range(first, first + n):
        write_image(raw / f"{number:03d}.png", number, size)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_written_equals_a_plain_loop(tmp_path: Path) -> None:
    fill(tmp_path / "raw/cat", 20, size=(9, 7))
    fill(tmp_path / "raw/dog", 10, first=20, size=(30, 6))
    manifest = run(tmp_path)
    prepared = Prepared(tmp_path / "out")
    assert prepared.manifest == manifest
    paths = sorted((tmp_path / "raw").rglob("*.png"))
    index = table(tmp_path / "out/index.csv")
    digest = hashlib.sha256(manifest.preprocess.to_json().encode())
    train = []
    for row, (path, entry) in enumerate(zip(paths, index, strict=True)):
        data = path.read_bytes()
        pixels = Preprocess(6)(data)
        np.testing.assert_array_equal(prepared.images(np.array([row]))[0], pixels)
        assert entry["path"] == prepared.path(row) == path.relative_to(tmp_path / "raw").as_posix()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert (int(entry["width"]), int(entry["height"])) == Image.open(io.BytesIO(data)).size
        digest.update(json.dumps([entry["sha256"], entry["split"], entry["label"]]).encode())
        if entry["split"] == "train":
            train.append(pixels / 255)
    assert manifest.digest == digest.hexdigest()
    assert manifest.mean == pytest.approx(np.stack(train).mean(axis=(0, 2, 3)), rel=1e-12)
    assert manifest.std == pytest.approx(np.stack(train).std(axis=(0, 2, 3)), rel=1e-12)
    assert manifest.splits == {"train": 21, "val": 3, "test": 6}
    assert Counter((entry["label"], entry["split"]) for entry in index) == {
        ("cat", "train"): 14,
        ("cat", "val"): 2,
        ("cat", "test"): 4,
        ("dog", "train"): 7,
        ("dog", "val"): 1,
        ("dog", "test"): 2,
    }


def test_the_width_is_that_of_the_upright_image(tmp_path: Path) -> None:
    fill(tmp_path / "raw", 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "raw/a.jpg", exif=exif)
    run(tmp_path)
    entry = table(tmp_path / "out/index.csv")[-1]
    assert (entry["path"], entry["width"], entry["height"]) == ("a.jpg", "20", "30")


def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "raw/train/cat", 60)
    fill(tmp_path / "raw/test/cat", 5, first=50)
    (tmp_path / "raw/bad.jpg").write_bytes(b"no image")
    written = []
    for workers in (1, 2, 3):
        run(tmp_path, workers=workers)
        written.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    assert written[0] == written[1] == written[2]
    assert set(written[0]) == {
        "images-00000.npy",
        "index.csv",
        "quarantine.csv",
        "duplicates.csv",
        "manifest.json",
    }


def test_copies_are_kept_where_they_are_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "raw"
    fill(raw / "train/cat", 12)
    fill(raw / "val/cat", 3, first=10)  # 10, 11 are in train too
    fill(raw / "test/cat", 3, first=11)  # 11 in train and val, 12 in val
    shutil.copy(raw / "train/cat/005.png", raw / "train/cat/zzz.png")
    manifest = run(tmp_path)
    assert table(tmp_path / "out/duplicates.csv") == [
        {"path": "val/cat/011.png", "kept": "test/cat/011.png", "conflict": "0"},
        {"path": "val/cat/012.png", "kept": "test/cat/012.png", "conflict": "0"},
        {"path": "train/cat/010.png", "kept": "val/cat/010.png", "conflict": "0"},
        {"path": "train/cat/011.png", "kept": "test/cat/011.png", "conflict": "0"},
        {"path": "train/cat/zzz.png", "kept": "train/cat/005.png", "conflict": "0"},
    ]
    assert manifest.splits == {"train": 10, "val": 1, "test": 3}
    assert (manifest.duplicates, manifest.conflicts) == (5, 0)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{raw}: train/, val/ and test/ with 1 class folder (cat); nothing is drawn."
    assert said[1].startswith(
        "prepared noise: 14 images, 1 classes, train 10 · val 1 · test 3, 0 quarantined, 5 duplicates, "
    )


def test_copies_under_two_labels_lose_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "raw/train/cat", 20)
    fill(tmp_path / "raw/test/dog", 3, first=19)  # 19 is a cat in train
    (tmp_path / "raw/unlabelled").mkdir()
    shutil.copy(tmp_path / "raw/train/cat/001.png", tmp_path / "raw/unlabelled/a.png")  # no label: no conflict
    manifest = run(tmp_path)
    first = table(tmp_path / "out/index.csv")[0]
    assert (first["path"], first["split"], first["label"]) == ("test/dog/019.png", "test", "")
    assert [row["conflict"] for row in table(tmp_path / "out/duplicates.csv")] == ["1", "0"]
    assert (manifest.conflicts, manifest.labelled["test"], manifest.splits["test"]) == (1, 2, 3)
    assert Prepared(tmp_path / "out").labels(np.arange(2)).tolist() == [-1, 1]
    assert "left unlabelled, since copies have another label: 1\n" in capsys.readouterr().err


def test_a_val_folder_without_test_is_the_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "raw/train/cat", 20)
    fill(tmp_path / "raw/val/cat", 5, first=20)
    manifest = run(tmp_path)
    assert manifest.splits == {"train": 18, "val": 2, "test": 5}
    index = table(tmp_path / "out/index.csv")
    assert {row["path"].split("/")[0] for row in index if row["split"] == "test"} == {"val"}
    assert "; the val folder is the test, and val (10 %) is drawn from train.\n" in capsys.readouterr().out


def test_labels_can_be_left_out(tmp_path: Path) -> None:
    fill(tmp_path / "raw/cat", 10)
    manifest = run(tmp_path, labels=False)
    assert (manifest.classes, manifest.labelled) == ((), {"train": 0, "val": 0, "test": 0})


def test_bad_files_are_set_aside_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "raw"
    fill(raw, 12)
    whole = (raw / "000.png").read_bytes()
    for name in "abcd":
        (raw / f"{name}.jpg").write_bytes(b"no image")
    (raw / "empty.png").touch()
    (raw / "cut.png").write_bytes(whole[:120])
    (raw / "gone.png").symlink_to("nowhere")
    manifest = run(tmp_path)
    assert (manifest.images, manifest.quarantined) == (12, 7)
    reasons = {row["path"]: row["reason"] for row in table(tmp_path / "out/quarantine.csv")}
    assert list(reasons) == ["a.jpg", "b.jpg", "c.jpg", "cut.png", "d.jpg", "empty.png", "gone.png"]
    assert reasons["cut.png"].startswith("truncated: ")
    assert reasons["empty.png"] == "empty: the file is empty"
    assert reasons["gone.png"] == "dangling symlink"
    said = capsys.readouterr().err.splitlines()
    assert "quarantined, not an image: 4 (a.jpg, b.jpg, c.jpg)" in said
    assert "quarantined, truncated: 1 (cut.png)" in said


def test_too_many_bad_files_stop_it_and_leave_the_list(tmp_path: Path) -> None:
    fill(tmp_path / "raw", 15)
    for number in range(5):
        (tmp_path / f"raw/bad{number}.png").touch()
    with pytest.raises(DataError) as caught:
        run(tmp_path, max_bad_fraction=0.24)
    assert str(caught.value) == (
        f"{tmp_path}/raw has 5 bad files of 20 (25.0%), more than prepare.max_bad_fraction = 0.24 allows; "
        f"the list is {tmp_path}/out/quarantine.csv"
    )
    assert len(table(tmp_path / "out/quarantine.csv")) == 5
    assert [path.name for path in tmp_path.iterdir()].count("out") == 1
    assert sorted(os.listdir(tmp_path)) == ["out", "raw"]
    with pytest.raises(DataError, match="run the prepare stage"):
        Prepared(tmp_path / "out")
    run(tmp_path, max_bad_fraction=0.25)  # the list it left is in nobody's way


def test_three_images_are_too_few(tmp_path: Path) -> None:
    fill(tmp_path / "raw", 3)
    with pytest.raises(DataError, match=r"raw has 3 usable images; at least 10 are needed"):
        run(tmp_path)


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    for number in range(10):
        write_image(tmp_path / f"raw/class{number}/a.png", number)
    with pytest.raises(DataError, match=r"leaves the test split without an image, .* 1 or 2 images"):
        run(tmp_path, val=0.0)
    shutil.rmtree(tmp_path / "raw")
    fill(tmp_path / "raw/test", 12)
    with pytest.raises(DataError, match=r"leaves the train split without an image; add images$"):
        run(tmp_path)


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.1), (0.5, 0.5), (0.1, 1.0)])
def test_fractions_that_leave_no_train_are_refused(tmp_path: Path, val: float, test: float) -> None:
    with pytest.raises(DataError, match=r"prepare\.val is .* prepare\.test"):
        run(tmp_path, val=val, test=test)


def test_no_folder_of_the_user_is_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "raw", 10)
    fill(tmp_path / "out", 1)
    with pytest.raises(DataError, match=r"out exists and is not a prepared dataset"):
        run(tmp_path)
    assert os.listdir(tmp_path / "out") == ["000.png"]
    with pytest.raises(DataError, match=r"lies inside the raw folder"):
        prepare(tmp_path / "raw", tmp_path / "raw/out", **OPTIONS)


class Deadly(Preprocess):
    """Kills its worker as the kernel does when memory runs out."""

    def fit(self, image: Image.Image) -> NDArray[np.uint8]:
        if image.width == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(image)


def test_a_killed_worker_is_named_by_its_files(tmp_path: Path) -> None:
    fill(tmp_path / "raw", 30)
    write_image(tmp_path / "raw/012x.png", 12, size=(9, 8))
    with pytest.raises(DataError, match=r"a worker was killed.*012x\.png.*fewer workers"):
        run(tmp_path, preprocess=Deadly(6))
    assert sorted(os.listdir(tmp_path)) == ["raw"]
