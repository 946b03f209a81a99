"""Batches: an order that is a pure function of (seed, epoch)."""

import numpy as np
import pytest
import torch

from data import DataError
from data.batches import Batches
from data.shards import Prepared


def test_an_epoch_is_a_permutation_of_the_rows(prepared: Prepared) -> None:
    rows = prepared.rows("train")
    batches = list(Batches(prepared, rows, 8, seed=0).epoch(3))
    assert [(batch.shape, batch.dtype) for batch in batches] == [((8, 3, 8, 8), torch.uint8)] * 4
    seen = {image.tobytes() for batch in batches for image in batch.numpy()}
    assert seen == {image.tobytes() for image in prepared.images(rows)}
    assert len(seen) == len(rows) == 32


def test_the_order_is_philox_of_seed_and_epoch(prepared: Prepared) -> None:
    rows = prepared.rows("train")
    for seed, epoch in [(0, 0), (0, 1), (5, 1)]:
        order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))).permutation(rows)
        found = torch.cat(list(Batches(prepared, rows, 4, seed).epoch(epoch)))
        np.testing.assert_array_equal(found.numpy(), prepared.images(order))


def test_seeds_and_epochs_differ_and_repeat(prepared: Prepared) -> None:
    batches = Batches(prepared, prepared.rows("train"), 8, seed=0)
    list(batches.epoch(0))
    orders = {Batches(prepared, batches.rows, 8, s).order(e).tobytes() for s in (0, 1) for e in (0, 1)}
    assert len(orders) == 4
    assert batches.order(7).tobytes() == batches.order(7).tobytes()


def test_a_resumed_epoch_goes_on_where_it_stopped(prepared: Prepared) -> None:
    batches = Batches(prepared, prepared.rows("train"), 5, seed=2)
    whole = list(batches.epoch(1))
    for start in range(len(batches) + 1):
        rest = list(batches.epoch(1, start))
        assert len(rest) == len(whole) - start
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[start:], strict=True))


def test_the_last_batch_is_dropped_or_short(prepared: Prepared) -> None:
    rows = prepared.rows("train")
    dropped, kept = (Batches(prepared, rows, 5, 0, drop_last=drop) for drop in (True, False))
    assert [len(batch) for batch in dropped.epoch(0)] == [5] * len(dropped) == [5] * 6
    assert [len(batch) for batch in kept.epoch(0)] == [5] * 6 + [2]
    assert len(kept) == 7
    assert len(Batches(prepared, rows, 8, 0, drop_last=False)) == 4


@pytest.mark.parametrize("size", [0, 33])
def test_a_batch_that_cannot_be_filled_is_refused(prepared: Prepared, size: int) -> None:
    with pytest.raises(DataError, match=rf"batch_size is {size}, .* 32 images .* allowed is 1 to 32"):
        Batches(prepared, prepared.rows("train"), size, seed=0)
