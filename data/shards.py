"""The prepared format: a folder of memory-mapped images, their index and a manifest.

images-00000.npy …   uint8 (n, 3, size, size); every shard but the last has the same n
index.csv            path, split, label, sha256, width, height: one row per image, in shard order
quarantine.csv       path, reason        duplicates.csv   path, kept, conflict
manifest.json        what `Manifest` says
"""

import csv
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from data import DataError
from data.decoding.decode import Preprocess
from data.splits import ORDER

FORMAT = 1
AGAIN = "Run the prepare stage: dvc repro prepare."
SHARD_BYTES = 256 * 2**20
INDEX = ("path", "split", "label", "sha256", "width", "height")
QUARANTINE = ("path", "reason")
DUPLICATES = ("path", "kept", "conflict")


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder holds; counts are of images.

    splits and labelled: split → count; conflicts: images left unlabelled because their copies disagreed;
    mean, std: per channel in [0, 1], over the train split; digest: of the rows' (sha256, split, label)
    and the preprocessing, so that equal digests are equal data.
    """

    name: str
    images: int
    splits: dict[str, int]
    classes: tuple[str, ...]
    labelled: dict[str, int]
    quarantined: int
    duplicates: int
    conflicts: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    preprocess: Preprocess
    digest: str
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write manifest.json into the folder."""
        (folder / "manifest.json").write_text(
            json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read manifest.json; DataError when the folder is not a prepared one, or of another format."""
        try:
            spec: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            if spec["format"] != FORMAT:
                raise DataError(f"The folder {folder} has the prepared format {spec['format']}, not {FORMAT}. {AGAIN}")
            spec["preprocess"] = Preprocess.from_json(json.dumps(spec["preprocess"]))
            return cls(**spec | {key: tuple(spec[key]) for key in ("classes", "mean", "std")})
        except OSError:
            raise DataError(f"The folder {folder} is no prepared dataset: manifest.json is missing. {AGAIN}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"The file {folder}/manifest.json is not from the prepare stage ({error}). {AGAIN}"
            ) from None


class ShardWriter:
    """Context manager that appends images to images-NNNNN.npy in `folder`, holding one image at a time."""

    def __init__(self, folder: Path, size: int, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._shape = folder, (3, size, size)
        self._per_shard = max(1, shard_bytes // (3 * size * size))
        self._file: BinaryIO | None = None
        self._in_shard = 0
        self._shards = 0

    def append(self, pixels: NDArray[np.uint8]) -> None:
        """Append one image (3, size, size)."""
        if pixels.shape != self._shape or pixels.dtype != np.uint8:
            raise ValueError(f"an image is uint8 {self._shape}, not {pixels.dtype} {pixels.shape}")
        if self._file is None or self._in_shard == self._per_shard:
            self._finish_shard()
            self._file = (self._folder / f"images-{self._shards:05d}.npy").open("wb")
            self._shards += 1
            self._write_header(self._file, 0)
        self._file.write(pixels.tobytes())
        self._in_shard += 1

    def _write_header(self, file: BinaryIO, n: int) -> None:
        # numpy pads the header so that the first axis may grow in place.
        header = {"descr": "|u1", "fortran_order": False, "shape": (n, *self._shape)}
        np.lib.format.write_array_header_1_0(file, header)

    def _finish_shard(self) -> None:
        if self._file is not None:
            with self._file:
                self._file.seek(0)
                self._write_header(self._file, self._in_shard)
        self._file, self._in_shard = None, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish_shard()


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file (RFC 4180, UTF-8) with a header line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def read_table(path: Path) -> Iterator[list[str]]:
    """The rows of a CSV file that `write_table` wrote, without the header, one at a time."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows, None)
        yield from rows


class Prepared:
    """A prepared folder, read through memory maps. A row is an image's place in the index, from 0.

    In memory an image takes 5 bytes, for its split and label. Its path is read from the disk on demand.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder)
        self.classes = self.manifest.classes
        code = {name: number for number, name in enumerate(self.classes)}
        splits, labels = bytearray(), array("i")
        try:
            for _, split, label, *_ in read_table(folder / "index.csv"):
                splits.append(ORDER.index(split))
                labels.append(code.get(label, -1))
            maps = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("images-*.npy"))]
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"The folder {folder} is damaged ({error}). {AGAIN}") from None
        held = sum(map(len, maps))
        if not len(splits) == held == self.manifest.images:
            raise DataError(
                f"The folder {folder} is damaged: its manifest says {self.manifest.images} images, "
                f"its index {len(splits)}, its shards {held}. {AGAIN}"
            )
        self._shards = [
            shard.view(np.ndarray) for shard in maps
        ]  # reading a row of a np.memmap takes ten times as long
        self._splits = np.frombuffer(splits, np.uint8)
        self._labels = np.frombuffer(labels, np.int32)

    @property
    def shard_rows(self) -> int:
        """Images per shard; the last one may have fewer."""
        return len(self._shards[0])

    @property
    def bytes_per_image(self) -> int:
        return 3 * self.manifest.preprocess.size**2

    def rows(self, split: str) -> NDArray[np.int64]:
        """The rows of a split, ascending; none when there is no such split."""
        return np.flatnonzero(self._splits == ORDER.index(split)) if split in ORDER else np.empty(0, np.int64)

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) rows → (n,) places in `classes`, -1 where unlabelled."""
        return self._labels[rows].astype(np.int64)

    def images(self, rows: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """(n,) rows → (n, 3, size, size), in the order asked, each copied once, from the memory map into `out`.

        out: C-contiguous, made where None. The maps are read in ascending order. Raises IndexError outside the index.
        """
        size = self.manifest.preprocess.size
        if out is None:
            out = np.empty((len(rows), 3, size, size), np.uint8)
        if out.shape != (len(rows), 3, size, size) or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(f"out is {out.dtype} {out.shape}; {len(rows)} images are uint8 {(3, size, size)} each")
        if len(rows) == 0:
            return out
        if rows.min() < 0 or rows.max() >= len(self._splits):
            raise IndexError(f"rows run from 0 to {len(self._splits) - 1}, not {rows.min()} to {rows.max()}")
        if len(self._shards) == 1:
            return np.take(self._shards[0], rows, axis=0, out=out, mode="clip")  # any other mode copies twice
        ascending = np.argsort(rows)
        shards, places = np.divmod(rows[ascending], self.shard_rows)
        for to, shard, place in zip(ascending.tolist(), shards.tolist(), places.tolist(), strict=True):
            out[to] = self._shards[shard][place]
        return out

    def path(self, row: int) -> str:
        """The image's path below the raw folder, POSIX."""
        return self._paths[row]

    @cached_property
    def _paths(self) -> list[str]:
        return [row[0] for row in read_table(self.folder / "index.csv")]
