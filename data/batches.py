"""Prepared images → batches of uint8, in an order that is a pure function of (seed, epoch)."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from data import DataError
from data.shards import Prepared


class Batches:
    """Batches of the given rows. No label is read.

    batch_size: images a batch, from 1 to the number of rows, else DataError; seed: at least 0;
    drop_last: leave out what does not fill a batch.
    """

    def __init__(
        self,
        prepared: Prepared,
        rows: NDArray[np.int64],
        batch_size: int,
        seed: int,
        drop_last: bool = True,
    ) -> None:
        if not 1 <= batch_size <= len(rows):
            raise DataError(
                f"batch_size is {batch_size}, but there are {len(rows)} images in {prepared.folder}; "
                f"allowed is 1 to {len(rows)}"
            )
        self.prepared, self.rows, self.batch_size = prepared, rows, batch_size
        self.seed, self.drop_last = seed, drop_last

    def __len__(self) -> int:
        """Batches an epoch."""
        full, rest = divmod(len(self.rows), self.batch_size)
        return full if self.drop_last or not rest else full + 1

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The rows in the order of the epoch, a pure function of (seed, epoch)."""
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch])))
        return generator.permutation(self.rows)

    def epoch(self, e: int, start: int = 0) -> Iterator[torch.Tensor]:
        """uint8 (B, 3, H, W) tensors of epoch e; the batches before `start` are not read."""
        order = self.order(e)
        for batch in range(start, len(self)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield torch.from_numpy(self.prepared.images(rows))
