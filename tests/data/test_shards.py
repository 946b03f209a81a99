"""The prepared format against plain numpy."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import DataError
from data.shards import Prepared, ShardWriter, read_table, write_table


@pytest.mark.parametrize(("n", "per_shard"), [(10, 4), (8, 4), (3, 4), (1, 1), (0, 4)])
def test_shards_are_plain_npy_files(tmp_path: Path, n: int, per_shard: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (n, 3, 5, 5), dtype=np.uint8)
    with ShardWriter(tmp_path, 5, shard_bytes=per_shard * 75 + 74) as writer:
        for image in images:
            writer.append(image)
    shards = [np.load(path, mmap_mode="r") for path in sorted(tmp_path.iterdir())]
    assert [len(shard) for shard in shards] == [min(per_shard, n - at) for at in range(0, n, per_shard)]
    if n:
        np.testing.assert_array_equal(np.concatenate(shards), images)


def test_an_image_of_another_shape_is_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 5) as writer, pytest.raises(ValueError, match=r"uint8 \(3, 5, 5\)"):
        writer.append(np.zeros((3, 4, 5), np.uint8))


@pytest.fixture
def copy(prepared: Prepared, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared.folder, tmp_path / "copy"))


def test_rows_of_many_shards_come_in_the_order_asked(prepared: Prepared, copy: Path) -> None:
    images = np.load(copy / "images-00000.npy")
    (copy / "images-00000.npy").unlink()
    for number in range(0, 40, 7):
        np.save(copy / f"images-{number // 7:05d}.npy", images[number : number + 7])
    reader = Prepared(copy)
    rows = np.random.default_rng(0).integers(0, 40, 100)
    expected = np.empty((100, 3, 8, 8), np.uint8)
    for place, row in enumerate(rows):
        expected[place] = images[row]
    np.testing.assert_array_equal(reader.images(rows), expected)
    np.testing.assert_array_equal(reader.images(rows), prepared.images(rows))
    assert reader.images(rows[:0]).shape == (0, 3, 8, 8)


def test_images_are_written_into_the_buffer_given(prepared: Prepared) -> None:
    rows = np.array([39, 0, 7])
    around = np.full((5, 3, 8, 8), 77, np.uint8)
    given = around[1:4]
    assert prepared.images(rows, given) is given
    np.testing.assert_array_equal(given, prepared.images(rows))
    assert (around[[0, 4]] == 77).all()
    wrongs: list[Any] = [around, given.astype(np.int16), np.empty((3, 8, 8, 3), np.uint8).transpose(0, 3, 1, 2)]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="3 images are uint8"):
            prepared.images(rows, wrong)


@pytest.mark.parametrize("row", [-1, 40])
def test_rows_outside_the_index_are_refused(prepared: Prepared, row: int) -> None:
    with pytest.raises(IndexError, match="rows run from 0 to 39"):
        prepared.images(np.array([0, row]))


def test_labels_are_places_in_the_classes(prepared: Prepared) -> None:
    rows = np.arange(40)
    assert prepared.classes == ("cat", "dog")
    for row, label in zip(rows, prepared.labels(rows), strict=True):
        assert prepared.path(int(row)).split("/")[0] == prepared.classes[label]
    assert prepared.labels(rows).dtype == np.int64


def test_the_splits_partition_the_rows(prepared: Prepared) -> None:
    parts = [prepared.rows(split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [32, 4, 4]
    assert sorted(np.concatenate(parts)) == list(range(40))
    assert len(prepared.rows("other")) == 0


def test_tables_keep_every_name(tmp_path: Path) -> None:
    rows = [['a,"b".jpg', "x"], ["line\nbreak.jpg", "é 日本"], ["cr\r.jpg", ""]]
    write_table(tmp_path / "table.csv", ("path", "reason"), rows)
    assert list(read_table(tmp_path / "table.csv")) == rows
    assert (tmp_path / "table.csv").read_bytes().startswith(b"path,reason\r\n")


def test_a_folder_that_is_not_prepared_says_to_run_prepare(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is no prepared dataset.*Run the prepare stage"):
        Prepared(tmp_path / "nowhere")
    manifest = json.loads((copy / "manifest.json").read_text())
    for wrong, sentence in [
        ("{", "is not from the prepare stage"),
        ('{"a": 1}', "format"),
        ("[]", "is not from the prepare stage"),
    ]:
        (copy / "manifest.json").write_text(wrong)
        with pytest.raises(DataError, match=rf"{sentence}.*Run the prepare stage"):
            Prepared(copy)
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format": 9}))
    with pytest.raises(DataError, match=r"has the prepared format 9, not 1"):
        Prepared(copy)


def test_a_damaged_folder_is_noticed(copy: Path) -> None:
    shard = np.load(copy / "images-00000.npy")
    np.save(copy / "images-00000.npy", shard[:-1])
    with pytest.raises(DataError, match=r"40 images, its index 40, its shards 39"):
        Prepared(copy)
    (copy / "images-00000.npy").write_bytes(b"")
    with pytest.raises(DataError, match="damaged"):
        Prepared(copy)
