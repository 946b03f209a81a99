"""A raw folder becomes a prepared one: images, splits, labels and copies."""

import hashlib
import io
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.decoding.decode import Preprocess
from data.shards import Prepared
from tests.data.noise import fill, run, table


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
    printed = capsys.readouterr()
    assert f"{raw}: train/, val/ and test/ with 1 class folder (cat); nothing is drawn." in printed.err.splitlines()
    assert printed.out.startswith(
        "Prepared noise: 14 images, 1 classes, train 10 · val 1 · test 3, 0 quarantined, 5 duplicates"
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
    assert "Left without a label, because copies have another label: 1\n" in capsys.readouterr().err


def test_a_val_folder_without_test_is_the_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "raw/train/cat", 20)
    fill(tmp_path / "raw/val/cat", 5, first=20)
    manifest = run(tmp_path)
    assert manifest.splits == {"train": 18, "val": 2, "test": 5}
    index = table(tmp_path / "out/index.csv")
    assert {row["path"].split("/")[0] for row in index if row["split"] == "test"} == {"val"}
    assert "; the val folder is the test, and val (10 %) is drawn from train.\n" in capsys.readouterr().err


def test_labels_can_be_left_out(tmp_path: Path) -> None:
    fill(tmp_path / "raw/cat", 10)
    manifest = run(tmp_path, labels=False)
    assert (manifest.classes, manifest.labelled) == ((), {"train": 0, "val": 0, "test": 0})
