"""The bundled sets equal scikit-learn's, the public ones their published records; a bad archive is refused."""

import gzip
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from data import DataError
from data.sources import fetch, main, members
from tests.data.mirror import Server, offer, pack

RNG = np.random.default_rng(0)


def images(folder: Path) -> dict[str, np.ndarray]:
    return {p.relative_to(folder).as_posix(): np.asarray(Image.open(p)) for p in sorted(folder.rglob("*.png"))}


def test_digits_are_those_of_scikit_learn(tmp_path: Path) -> None:
    assert main(["digits", "--out", str(tmp_path / "digits")]) == 0
    found, bunch = images(tmp_path / "digits"), load_digits()
    assert len(found) == 1797
    for number, (values, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        image = found[f"{label}/{number:04d}.png"]
        assert image.dtype == np.uint8
        assert image.tolist() == [[round(value * 255 / 16) for value in line] for line in values]


def test_writers_of_the_test_digits_are_unseen(tmp_path: Path) -> None:
    assert main(["digits", "--out", str(tmp_path / "all")]) == 0
    assert main(["digits-writers", "--out", str(tmp_path / "writers")]) == 0
    found = images(tmp_path / "writers")
    numbers = {
        split: sorted(int(Path(n).stem) for n in found if n.startswith(split)) for split in ("train", "val", "test")
    }
    assert [*numbers["train"], *numbers["val"], *numbers["test"]] == list(range(1797))  # the order of the file
    assert [len(n) for n in numbers.values()] == [1170, 130, 497]
    together = {name.partition("/")[2]: image for name, image in found.items()}
    assert together.keys() == (everyone := images(tmp_path / "all")).keys()
    assert all(np.array_equal(together[name], image) for name, image in everyone.items())


def test_cifar10_records_become_images(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planes = RNG.integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    record = [bytes([label]) + image.tobytes() for label, image in zip((0, 9, 9), planes, strict=True)]
    folder = "cifar-10-batches-bin"
    files = {"batches.meta.txt": b"", "data_batch_1.bin": record[0], "data_batch_2.bin": record[1]}
    files = {f"{folder}/{name}": data for name, data in (files | {"test_batch.bin": record[2]}).items()}
    offer(server, "cifar10", pack(files), monkeypatch)
    fetch("cifar10", tmp_path / "cifar10")
    found = images(tmp_path / "cifar10")
    assert list(found) == ["test/truck/00000.png", "train/airplane/00000.png", "train/truck/00001.png"]
    for path, image in zip(found.values(), planes[[2, 0, 1]], strict=True):
        np.testing.assert_array_equal(path, image.transpose(1, 2, 0))
    assert [path.name for path in tmp_path.iterdir()] == ["cifar10"]


def test_stl10_records_are_stored_columns_first(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = RNG.integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    stored = [bytes(picture.transpose(2, 1, 0).tobytes()) for picture in pictures]
    files = {
        "test_X.bin": stored[0],
        "test_y.bin": b"\x0a",
        "train_X.bin": stored[1] + stored[2],
        "train_y.bin": b"\x01\x02",
        "unlabeled_X.bin": stored[3],
        "class_names.txt": b"airplane\n",
    }
    offer(server, "stl10", pack({f"stl10_binary/{n}": data for n, data in files.items()}), monkeypatch)
    fetch("stl10", tmp_path / "stl10")
    found = images(tmp_path / "stl10")
    assert list(found) == [
        "test/truck/000000.png",
        "train/airplane/000000.png",
        "train/bird/000001.png",
        "unlabelled/000000.png",
    ]
    np.testing.assert_array_equal(np.stack(list(found.values())), pictures)
    assert sorted(path.name for path in (tmp_path / "stl10").iterdir() if path.is_dir()) == [
        "test",
        "train",
        "unlabelled",
    ]


def test_imagenette_keeps_its_own_jpegs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "imagenette2-160/train/n03028079/a.JPEG": b"jpeg 1",
        "imagenette2-160/val/n02102040/b.JPEG": b"jpeg 2",
        "imagenette2-160/val/n02102040/._b.JPEG": b"of a Mac",
        "imagenette2-160/noisy_imagenette.csv": b"path",
    }
    offer(server, "imagenette", pack(files), monkeypatch)
    fetch("imagenette", tmp_path / "set")
    found = {p.relative_to(tmp_path / "set").as_posix(): p.read_bytes() for p in tmp_path.rglob("*.JPEG")}
    assert found == {"train/church/a.JPEG": b"jpeg 1", "val/English springer/b.JPEG": b"jpeg 2"}


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../outside.bin"),
        tarfile.TarInfo("set/../../outside.bin"),
        tarfile.TarInfo("/tmp/outside.bin"),
        link("set/link.bin", tarfile.SYMTYPE),
        link("set/link.bin", tarfile.LNKTYPE),
        link("set/pipe.bin", tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member.name} {member.type.decode()}",
)
def test_members_that_leave_the_folder_are_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    with tarfile.open(tmp_path / "set.tgz", "w:gz") as tar:
        tar.addfile(member)
    with pytest.raises(DataError, match="unsafe member"):
        list(members(tmp_path / "set.tgz"))


@pytest.mark.parametrize(
    "data",
    [b"not gzip", gzip.compress(b"not tar" * 200), pack({"a.bin": b"1" * 9})[:60]],
    ids=["not gzip", "not tar", "cut short"],  # gzip's bytes hold the time: every process would give another name
)
def test_an_archive_that_cannot_be_read_is_one_sentence(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    offer(server, "cifar10", data, monkeypatch)
    with pytest.raises(DataError, match=r"is not the expected archive .* Remove it and run"):
        fetch("cifar10", tmp_path / "cifar10")
    assert not (tmp_path / "cifar10").exists()


def test_a_record_cut_short_is_noticed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(server, "cifar10", pack({"set/data_batch_1.bin": b"\0" * 3072}), monkeypatch)
    with pytest.raises(DataError, match=r"set/data_batch_1\.bin ends within a record"):
        fetch("cifar10", tmp_path / "cifar10")
