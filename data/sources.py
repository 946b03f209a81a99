"""The public image sets, each a folder `split/class/image`: `python -m data.sources NAME --out FOLDER`."""

import argparse
import io
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data import DataError, origin
from data.disk import refusal
from data.download import download
from data.progress import Progress

CODE = Path(__file__)
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
STL10_CLASSES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
IMAGENETTE_CLASSES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


def digits(out: Path, splits: Callable[[int], str] = lambda number: ".") -> None:
    """scikit-learn's 1,797 handwritten digits, `label/index.png`, 8 × 8 grey, 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - no other set needs it

    bunch = load_digits()
    for number, (image, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        folder = out / splits(number) / str(label)
        _save(np.rint(image * 255 / 16).astype(np.uint8), folder / f"{number:04d}.png")


def digits_writers(out: Path) -> None:
    """The same, `split/label/index.png`, in the order of the file, which runs writer by writer: test's are unseen."""
    digits(out, lambda number: "train" if number < 1170 else "val" if number < 1300 else "test")


def cifar10(archive: Path, out: Path) -> None:
    """Records of a label byte and 3 × 32 × 32 bytes → `split/class/number.png`, numbered over the split."""
    size, numbers = 3 * 32 * 32, {"train": 0, "test": 0}
    for path, file in members(archive):
        if path.suffix == ".bin":
            split = "test" if path.name.startswith("test") else "train"
            for record in _records(file, 1 + size, path):
                label, pixels = CIFAR10_CLASSES[record[0]], record[1:].reshape(3, 32, 32)
                _save(pixels.transpose(1, 2, 0), out / split / label / f"{numbers[split]:05d}.png")
                numbers[split] += 1


def stl10(archive: Path, out: Path) -> None:
    """Records of 3 × 96 × 96 bytes, columns first → `split/class/number.png` and `unlabelled/number.png`."""
    labels: dict[str, bytes] = {}
    for path, file in members(archive):
        split, _, what = path.stem.partition("_")
        if what == "X":
            folder = out / "unlabelled" if split == "unlabeled" else out / f".{split}"
            for number, record in enumerate(_records(file, 3 * 96 * 96, path)):
                _save(record.reshape(3, 96, 96).transpose(2, 1, 0), folder / f"{number:06d}.png")
        elif what == "y":
            labels[split] = file.read()
    for split, numbers in labels.items():  # the archive need not hold labels before images
        for number, label in enumerate(numbers):
            target = out / split / STL10_CLASSES[label - 1] / f"{number:06d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            (out / f".{split}" / target.name).rename(target)
        (out / f".{split}").rmdir()


def imagenette(archive: Path, out: Path) -> None:
    """The archive's own JPEGs, shorter side 160, `train|val/class/name.JPEG`, classes by their English name."""
    for path, file in members(archive):
        _, *folders, name = path.parts
        if path.suffix == ".JPEG" and not name.startswith(".") and len(folders) == 2:
            target = out / folders[0] / IMAGENETTE_CLASSES[folders[1]] / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read())


@dataclass(frozen=True)
class Source:
    """url and md5 of the official archive, and what turns it into a folder."""

    url: str
    md5: str
    unpack: Callable[[Path, Path], None]


BUNDLED: dict[str, Callable[[Path], None]] = {"digits": digits, "digits-writers": digits_writers}
SOURCES = {
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", cifar10
    ),
    "stl10": Source(
        "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb", stl10
    ),
    "imagenette": Source(
        "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
        "e793b78cc4c9e9a4ccc0c1155377a412",
        imagenette,
    ),
}


def fetch(name: str, out: Path) -> None:
    """Make the folder `out` of the named set, whole or not at all.

    A folder that this function made of the same set stays; it is made again only when this file has changed since.
    Any other folder belongs to the user: nothing in it is touched, and DataError says so.
    ENCODER_FOUNDRY_MIRROR, a base URL, replaces the official address of the archive.
    """
    try:
        if out.exists() or out.is_symlink():
            if not origin.is_ours(out, name):
                raise DataError(occupied(name, out))
            if origin.is_current(out, CODE):
                print(f"The folder {out} is there already. Remove it to fetch {name} again.")
                return
        _make(name, out)
    except OSError as error:
        raise DataError(f"The folder {out} cannot be written: {refusal(error, out)}.") from None


def occupied(name: str, out: Path) -> str:
    """The message for a folder that stands in the set's place and is not ours, or was changed since."""
    added = "was changed since it was fetched" if origin.is_signed(out, name) else "was not fetched by this project"
    return (
        f"The folder {out} {added}, so it is not replaced by the public set {name}. To train on its images, "
        f"run: python -m pipelines.flow {out}. To fetch {name}, rename or move that folder first."
    )


def _make(name: str, out: Path) -> None:
    unpacking, before = (out.with_name(f".{out.name}.{word}") for word in ("unpacking", "before"))
    shutil.rmtree(unpacking, ignore_errors=True)
    try:
        unpacking.mkdir(parents=True)
        if name in BUNDLED:
            BUNDLED[name](unpacking)
        else:
            _fetch_archive(SOURCES[name], unpacking)
        origin.sign(unpacking, name, CODE)
        if out.exists():
            out.rename(before)
        unpacking.rename(out)
    finally:
        for folder in (unpacking, before):
            shutil.rmtree(folder, ignore_errors=True)


def _fetch_archive(source: Source, folder: Path) -> None:
    file_name = source.url.rsplit("/", 1)[1]
    mirror = os.environ.get("ENCODER_FOUNDRY_MIRROR")
    archive = folder.with_name(f".{file_name}")
    if not archive.exists():
        download(f"{mirror.rstrip('/')}/{file_name}" if mirror else source.url, archive, source.md5)
    try:
        source.unpack(archive, folder)
    except (tarfile.TarError, EOFError, IndexError, KeyError, ValueError) as error:
        raise DataError(
            f"The file {archive} is not the expected archive ({error}). Remove it and run the same command again."
        ) from None
    archive.unlink()


def members(archive: Path) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """The regular files of a gzipped tar, one after the other; DataError on a link or a path that leaves."""
    with (
        Progress(archive.stat().st_size, f"unpack {archive.name.lstrip('.')}", "bytes") as progress,
        _Counted(archive, progress) as packed,
        tarfile.open(fileobj=packed, mode="r|gz") as tar,
    ):
        for member in tar:
            path = PurePosixPath(member.name)
            if not (member.isreg() or member.isdir()) or path.is_absolute() or ".." in path.parts:
                raise DataError(
                    f"The archive {archive} holds the unsafe member {member.name!r}. Remove it, then fetch another."
                )
            if (file := tar.extractfile(member)) is not None:
                yield path, file


class _Counted(io.FileIO):
    """A file that shows how far it is read: one member may be gigabytes long."""

    def __init__(self, path: Path, progress: Progress) -> None:
        super().__init__(path)
        self._progress = progress

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._progress.advance(len(data))
        return data


def _records(file: IO[bytes], size: int, path: PurePosixPath) -> Iterator[NDArray[np.uint8]]:
    while record := file.read(size):
        if len(record) != size:
            raise ValueError(f"{path} ends within a record")
        yield np.frombuffer(record, np.uint8)


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)


def main(argv: list[str] | None = None) -> int:
    """The command; 0, or 1 after one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m data.sources", description=__doc__)
    parser.add_argument("name", choices=[*BUNDLED, *SOURCES], help="the public set")
    parser.add_argument("--out", type=Path, required=True, help="the folder to create; example: --out data/raw/cifar10")
    arguments = parser.parse_args(argv)
    try:
        fetch(arguments.name, arguments.out)
    except DataError as error:
        print(f"data.sources: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to resume the download.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
