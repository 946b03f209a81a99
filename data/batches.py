"""Prepared images → batches of uint8, in an order that is a pure function of (seed, epoch)."""

import os
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from data import DataError
from data.shards import Prepared

WINDOW = 16  # shards that are shuffled together: 4 GiB
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
Places = NDArray[np.int64]


class Batches:
    """Batches of the given rows, ascending. No label is read.

    batch_size: images per batch over all processes, from 1 to the number of rows, otherwise DataError. seed: at least
    0. drop_last: leave out the images that do not fill a batch.

    shuffle, "global": an epoch is a random permutation of the rows. It keeps 8 bytes per image in memory. When the
    images do not fit into memory, every image is a random read from the disk.
    "shards": an epoch goes through windows of 16 random shards, and a random permutation of each window. Reads stay
    within a window, and only its order is kept in memory. The price: the images of a batch come from 16 shards only.
    Shards are in the order of the paths, so that a folder of classes gives batches of few classes
    (unlike its epochs): harder negatives, and batch statistics that vary more.
    Both give the same batches whatever the machine, its memory, and the number of processes.

    A place is an image's position in `rows`. Of a batch, process `rank` of `world` has a contiguous part:
    from rank · B / world to (rank + 1) · B / world.
    """

    def __init__(
        self,
        prepared: Prepared,
        rows: NDArray[np.int64],
        batch_size: int,
        seed: int,
        drop_last: bool = True,
        shuffle: Literal["global", "shards"] = "global",
    ) -> None:
        if not 1 <= batch_size <= len(rows):
            raise DataError(
                f"The batch size is {batch_size}, but {prepared.folder} has {len(rows)} images. "
                f"Allowed: 1 to {len(rows)}."
            )
        self.prepared, self.rows, self.batch_size = prepared, rows, batch_size
        self.seed, self.drop_last, self.shuffle = seed, drop_last, shuffle
        # Shard k holds the places from edges[k] up to edges[k + 1]; "global" is one window of one shard.
        size = prepared.shard_rows if shuffle == "shards" else prepared.manifest.images
        shards = -(-prepared.manifest.images // size)
        self._edges = np.searchsorted(rows, np.arange(shards + 1) * size)
        self._kept: tuple[tuple[int, int], Places] | None = None

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self.rows), self.batch_size)
        return full if self.drop_last or not rest else full + 1

    @property
    def bytes(self) -> int:
        """The size of all images."""
        return len(self.rows) * self.prepared.bytes_per_image

    def advice(self) -> str | None:
        """A sentence when another `shuffle` would be faster on this machine. The batches do not depend on it."""
        if self.shuffle == "shards" or self.bytes <= MEMORY:
            return None
        return (
            f"The images take {self.bytes / 1e9:.1f} GB and this machine has {MEMORY / 1e9:.1f} GB of memory, so "
            "nearly every image is a random read from the disk. To read windows of "
            f"{WINDOW} shards instead, set pretrain.shuffle: shards in params.yaml."
        )

    def places(self, epoch: int, batch: int, rank: int = 0, world: int = 1) -> Places:
        """(B / world,) places of the batch's images, in `rows` and in `whole()`.

        DataError when the batch cannot be shared out evenly.
        """
        if self.batch_size % world:
            raise DataError(
                f"The batch size is {self.batch_size}. Allowed for {world} processes: a multiple of {world}."
            )
        first = batch * self.batch_size
        size = min(self.batch_size, len(self.rows) - first)  # the last batch may be short
        return self._span(epoch, first + rank * size // world, first + (rank + 1) * size // world)

    def read(
        self, epoch: int, batch: int, rank: int = 0, world: int = 1, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The part of the batch as uint8 (B / world, 3, H, W), written into `out` (for example pinned) if given."""
        rows = self.rows[self.places(epoch, batch, rank, world)]
        images = self.prepared.images(rows, None if out is None else out.numpy())
        return torch.from_numpy(images) if out is None else out

    def epoch(self, e: int, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[torch.Tensor]:
        """What `read` gives, for every batch of epoch e; the batches before `start` are not read."""
        for batch in range(start, len(self)):
            yield self.read(e, batch, rank, world)

    def whole(self) -> torch.Tensor:
        """All images, uint8 (n, 3, H, W) in the order of `rows`: whole()[places(e, b)] is the batch."""
        return torch.from_numpy(self.prepared.images(self.rows))

    def _span(self, epoch: int, first: int, last: int) -> Places:
        """The places from the epoch's first-th up to its last-th, from every window that they touch."""
        shards = _random(self.seed, epoch).permutation(len(self._edges) - 1)
        ends = np.cumsum(np.diff(self._edges)[shards])
        parts = [np.empty(0, np.int64)]
        while first < last:
            number = int(np.searchsorted(ends, first, side="right")) // WINDOW
            window = slice(number * WINDOW, (number + 1) * WINDOW)
            begin, end = ends[window.start - 1] if number else 0, min(ends[window][-1], last)
            parts.append(self._window(epoch, number, shards[window])[first - begin : end - begin])
            first = end
        return np.concatenate(parts)

    def _window(self, epoch: int, number: int, shards: NDArray[np.int64]) -> Places:
        """The places of a window's shards, shuffled; the last one is kept, for the next batch."""
        if self._kept is None or self._kept[0] != (epoch, number):
            self._kept = None  # otherwise two of them would be in memory
            if self.shuffle == "global":
                places = _random(self.seed, epoch).permutation(len(self.rows))
            else:
                held = [np.arange(self._edges[shard], self._edges[shard + 1]) for shard in shards]
                places = _random(self.seed, epoch, 1 + number).permutation(np.concatenate(held))
            self._kept = (epoch, number), places
        return self._kept[1]


def _random(*entropy: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
