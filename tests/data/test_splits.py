"""Counted facts of the drawn splits."""

from collections import Counter

import pytest

from data.splits import apportion, assign, draw

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


@pytest.mark.parametrize(
    ("n", "counts"),
    [
        (0, (0, 0, 0)),
        (1, (1, 0, 0)),
        (2, (2, 0, 0)),
        (3, (1, 1, 1)),
        (4, (2, 1, 1)),
        (10, (8, 1, 1)),
        (14, (11, 2, 1)),
        (15, (12, 2, 1)),
        (100, (80, 10, 10)),
    ],
)
def test_largest_remainder_by_hand(n: int, counts: tuple[int, int, int]) -> None:
    assert tuple(apportion(n, SHARES).values()) == counts


def test_shares_of_zero_have_nothing_and_the_sum_is_whole() -> None:
    for n in range(200):
        counts = apportion(n, {"train": 0.7, "val": 0.3, "test": 0.0})
        assert sum(counts.values()) == n
        assert counts["test"] == 0
        assert abs(counts["val"] - 0.3 * n) < 1


def drawn(seed: int = 0) -> dict[str, tuple[str | None, str]]:
    labels = ["a"] * 50 + ["b"] * 20 + ["c"] * 3 + ["d"] + [None] * 30
    keys = [f"{label}{number}" for number, label in enumerate(labels)]
    splits = draw(labels, keys, {"val": 0.1, "test": 0.2}, seed)
    return dict(zip(keys, zip(labels, splits, strict=True), strict=True))


def test_every_label_is_shared_out() -> None:
    assert Counter(drawn().values()) == {
        ("a", "train"): 35,
        ("a", "val"): 5,
        ("a", "test"): 10,
        ("b", "train"): 14,
        ("b", "val"): 2,
        ("b", "test"): 4,
        ("c", "train"): 1,
        ("c", "val"): 1,
        ("c", "test"): 1,
        ("d", "train"): 1,
        (None, "train"): 21,
        (None, "val"): 3,
        (None, "test"): 6,
    }


def test_the_seed_decides_and_nothing_else() -> None:
    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    labels, keys = ["a"] * 20, [f"key{number}" for number in range(20)]
    forward = draw(labels, keys, {"val": 0.5}, 0)
    backward = draw(labels, keys[::-1], {"val": 0.5}, 0)
    assert forward == backward[::-1]


def test_what_the_folders_say_comes_first() -> None:
    assert assign([None, "train"], 0.1, 0.2)[:2] == (["train", "train"], {"val": 0.1, "test": 0.2})
    assert assign(["train", "test", None], 0.1, 0.2)[:2] == (["train", "test", "train"], {"val": 0.1})
    assert assign(["train", "val"], 0.1, 0.2)[:2] == (["train", "test"], {"val": 0.1})
    assert assign(["train", "val", "test"], 0.1, 0.2)[:2] == (["train", "val", "test"], {})


def test_nothing_is_drawn_from_what_folders_leave_out() -> None:
    assert assign(["train", "extra"], 0.1, 0.2)[:2] == (["train", "extra"], {"val": 0.1, "test": 0.2})
    assert assign(["train", "test", "extra"], 0.1, 0.2)[:2] == (["train", "test", "extra"], {"val": 0.1})


def test_the_choice_is_said() -> None:
    assert assign([None], 0.1, 0.2)[2] == "val (10 %) and test (20 %) are drawn from all"
    assert assign(["train", "extra"], 0.07, 0.0)[2] == "val (7 %) is drawn from train, no test"
    assert assign(["train", "val"], 0.1, 0.2)[2] == "the val folder is the test, and val (10 %) is drawn from train"
    assert assign(["train", "test"], 0.0, 0.2)[2] == "no val"
    assert assign(["train", "val", "test"], 0.1, 0.2)[2] == "nothing is drawn"
