"""Batches: an order that is a pure function of (seed, epoch)."""

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from data import DataError
from data.batches import Batches
from data.shards import Prepared

Shuffle = Literal["global", "shards"]


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
    first = {e: [batches.places(e, b).tolist() for b in range(4)] for e in (0, 7, 1)}
    for e in (1, 0, 7):  # whatever was asked before
        assert [batches.places(e, b).tolist() for b in (3, 0, 2, 1)] == [first[e][b] for b in (3, 0, 2, 1)]
    first[-1] = [Batches(prepared, batches.rows, 8, 1).places(0, b).tolist() for b in range(4)]
    assert len({str(order) for order in first.values()}) == 4


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
    with pytest.raises(DataError, match=rf"batch size is {size}, .* 32 images\. Allowed: 1 to 32\."):
        Batches(prepared, prepared.rows("train"), size, seed=0)


@pytest.fixture(params=["global", "shards"])
def shuffle(request: pytest.FixtureRequest) -> Shuffle:
    return "global" if request.param == "global" else "shards"


@pytest.fixture
def sharded(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """The same images in 14 shards of 3, the last of 1; a window is 4 shards."""
    monkeypatch.setattr("data.batches.WINDOW", 4)
    folder = Path(shutil.copytree(prepared.folder, tmp_path / "sharded"))
    images = np.load(folder / "images-00000.npy")
    for number in range(14):
        np.save(folder / f"images-{number:05d}.npy", images[3 * number : 3 * number + 3])
    return Prepared(folder)


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_the_parts_of_the_processes_are_the_batch(sharded: Prepared, shuffle: Shuffle, world: int) -> None:
    batches = Batches(sharded, sharded.rows("train"), 6, 3, shuffle=shuffle)
    for number, batch in enumerate(batches.epoch(2, start=1), 1):
        parts = [next(batches.epoch(2, number, rank, world)) for rank in range(world)]
        assert {len(part) for part in parts} == {6 // world}
        assert torch.equal(torch.cat(parts), batch)


def test_a_batch_that_cannot_be_shared_out_is_refused(prepared: Prepared) -> None:
    batches = Batches(prepared, prepared.rows("train"), 8, 0)
    with pytest.raises(DataError, match=r"batch size is 8\. Allowed for 3 processes: a multiple of 3\."):
        batches.places(0, 0, rank=1, world=3)


def test_places_index_the_whole_set(sharded: Prepared, shuffle: Shuffle) -> None:
    batches = Batches(sharded, sharded.rows("train"), 5, 3, drop_last=False, shuffle=shuffle)
    whole = batches.whole()
    assert whole.numel() == batches.bytes == 32 * 3 * 8 * 8
    for number, batch in enumerate(batches.epoch(4)):
        assert torch.equal(whole[torch.from_numpy(batches.places(4, number))], batch)
    seen = np.concatenate([batches.places(4, number) for number in range(len(batches))])
    assert sorted(seen) == list(range(32))


def test_a_batch_is_written_into_the_buffer_given(sharded: Prepared, shuffle: Shuffle) -> None:
    batches = Batches(sharded, sharded.rows("train"), 8, 3, shuffle=shuffle)
    buffer = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    address = buffer.data_ptr()
    assert batches.read(1, 2, rank=1, world=2, out=buffer) is buffer
    assert buffer.data_ptr() == address
    assert torch.equal(buffer, list(batches.epoch(1))[2][4:])


def test_shuffled_shards_go_by_windows_of_random_shards(sharded: Prepared) -> None:
    """Written anew as the slow loop that the docstring says."""
    rows = sharded.rows("train")
    batches = Batches(sharded, rows, 4, 5, shuffle="shards")

    def random(*entropy: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))

    for epoch in (0, 1):
        shards, expected = list(random(5, epoch).permutation(14)), list[int]()
        for number in range(4):
            window = [shards.pop(0) for _ in range(min(4, len(shards)))]
            held = [place for shard in window for place in range(32) if rows[place] // 3 == shard]
            expected += random(5, epoch, 1 + number).permutation(held).tolist()
        found = [place for number in range(8) for place in batches.places(epoch, number).tolist()]
        assert found == expected
        assert sorted(found) == list(range(32))


def test_images_beyond_memory_are_advised_to_go_by_shards(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = prepared.rows("train")
    assert Batches(prepared, rows, 8, 0).advice() is None
    monkeypatch.setattr("data.batches.MEMORY", 32 * 3 * 8 * 8 - 1)
    assert "pretrain.shuffle: shards" in str(Batches(prepared, rows, 8, 0).advice())
    assert Batches(prepared, rows, 8, 0, shuffle="shards").advice() is None
