"""kNN and the linear probe equal loops and scikit-learn; label samples are drawn per class."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier

from models.evaluation.probe import (
    Array,
    Labels,
    knn,
    label_samples,
    linear_probe,
    pick_C,
    shots_of,
    standardize,
)  # fmt: skip
from tests.models.conftest import digits


def clusters(n: int, d: int, spread: float, seed: int = 0) -> tuple[Array, Labels]:
    """n points about three centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((3, d))
    y = rng.integers(0, 3, n)
    return (centres[y] + spread * rng.standard_normal((n, d))).astype(np.float32), y


def slow_vote(x: Array, y: Labels, q: Array, k: int, temperature: float) -> int:
    cosines = [float(q @ row) / math.hypot(*q) / math.hypot(*row) for row in x.astype(float)]
    nearest = sorted(range(len(x)), key=lambda i: -cosines[i])[:k]
    votes: dict[int, float] = dict.fromkeys(y.tolist(), 0.0)
    for i in nearest:
        votes[int(y[i])] += math.exp(cosines[i] / temperature)
    return max(votes, key=lambda c: votes[c])


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 1.0), (1000, 0.07)])
def test_knn_is_the_loop(k: int, temperature: float) -> None:
    x, y = clusters(60, 6, spread=1.5)
    queries, _ = clusters(40, 6, spread=1.5, seed=1)
    expected = [slow_vote(x, y, q, k, temperature) for q in queries]
    assert knn(x, y, queries, k, temperature).tolist() == expected
    assert len(set(expected)) == 3


@pytest.mark.parametrize("temperature", [0.005, 1e-4])
def test_a_low_temperature_neither_overflows_nor_vanishes(temperature: float) -> None:
    """exp(1 / 0.005) is beyond float32: each vote was infinite, and the first of the classes won."""
    x, y = clusters(60, 6, spread=1.5)
    queries, _ = clusters(40, 6, spread=1.5, seed=1)
    nearest = [slow_vote(x, y, q, 1, 1.0) for q in queries]
    expected = [slow_vote(x, y, q, 20, temperature) for q in queries] if temperature == 0.005 else nearest
    assert knn(x, y, queries, 20, temperature).tolist() == expected
    opposite = np.array([[-1.0, 0.0], [-0.99, 0.1]], np.float32)  # exp((s - 1) / T) would be 0 for both
    assert knn(opposite, np.array([0, 1]), np.array([[1.0, 0.0]], np.float32), 2, temperature).tolist() == [1]


def test_temperature_weighs_the_near_one_against_the_many() -> None:
    angles = np.array([0.1, 0.6, 0.6])  # one neighbour of class 1, then two of class 0
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    y, query = np.array([1, 0, 0]), np.array([[5.0, 0.0]], np.float32)
    assert knn(x, y, query, 3, 0.07).tolist() == [1]
    assert knn(x, y, query, 3, 10.0).tolist() == [0]


GRID = (0.1, 1.0, 10.0, 100.0)


def picked_slowly(x: Array, y: Labels, folds: int) -> float:
    """The C with most held-out digits told rightly, by scikit-learn; every fifth of a class is a fold."""
    place = np.zeros(len(y), int)
    for c in range(10):
        place[y == c] = range((y == c).sum())
    score: dict[float, tuple[int, float]] = dict.fromkeys(GRID, (0, 0.0))
    for f in range(folds):
        held = place % 5 == f
        for C in GRID:
            model = LogisticRegression(C=C, tol=1e-6, max_iter=5000).fit(x[~held].astype(float), y[~held])
            right = int((model.predict(x[held]) == y[held]).sum())
            loss = log_loss(y[held], model.predict_proba(x[held]), normalize=False)
            score[C] = (score[C][0] + right, score[C][1] - loss)
    return max(GRID, key=lambda C: score[C])


@pytest.mark.parametrize(("shots", "folds"), [(5, 5), (10, 5), (60, 1)])
def test_c_is_picked_on_held_out_digits(shots: int, folds: int) -> None:
    x, y = digits()
    chosen = next(label_samples(y[:1200], shots, 1, seed=0))
    few, _ = standardize(x[:1200][chosen], x[1200:])
    assert pick_C(few, y[chosen], GRID) == picked_slowly(few, y[chosen], folds)


@pytest.mark.parametrize("shots", [1, 2, 4])
def test_where_nothing_can_be_held_out_c_is_the_middle_of_the_grid(shots: int) -> None:
    y = np.repeat(np.arange(3), shots)
    x = np.random.default_rng(0).standard_normal((len(y), 4)).astype(np.float32)
    assert pick_C(x, y, GRID) == 10.0
    assert pick_C(x, y, (3.0,)) == 3.0


def test_a_class_of_one_image_stops_nothing() -> None:
    x, y = clusters(60, 4, 0.1)
    y[7] = 5
    (predicted,), _ = linear_probe(x, y, [x], (1.0, 100.0))
    assert (predicted[y != 5] == y[y != 5]).all()


@pytest.mark.parametrize("shots", [1, 5])
def test_few_samples_of_many_features_are_the_plain_fit(shots: int) -> None:
    x, y = digits()
    x, queries = standardize(x[:1200], x[1200:])
    chosen = next(label_samples(y[:1200], shots, 1, seed=0))
    assert len(chosen) < x.shape[1]
    (predicted,), C = linear_probe(x[chosen], y[chosen], [queries], GRID)
    plain = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(x[chosen].astype(float), y[chosen])
    ours, theirs = (100 * np.mean(p == y[1200:]) for p in (predicted, plain.predict(queries)))
    assert abs(ours - theirs) < 0.2


@pytest.mark.parametrize(("n", "k"), [(1200, 20), (1200, 1), (50, 5)])
def test_knn_is_scikit_learns(n: int, k: int) -> None:
    x, y = digits()
    model = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    theirs = model.fit(x[:n], y[:n]).predict(x[1200:])
    ours = knn(x[:n], y[:n], x[1200:], k, 0.07)
    assert abs(100 * np.mean(ours == y[1200:]) - 100 * np.mean(theirs == y[1200:])) < 0.2
    assert 60 < 100 * np.mean(ours == y[1200:]) < 100


def test_counts_that_not_every_class_has_are_left_out() -> None:
    y = np.array([0] * 30 + [3] * 10)
    assert shots_of(y, (1, 5, 10, 11, 50)) == [1, 5, 10]


def test_draws_hold_so_many_labels_per_class() -> None:
    y = np.array([0] * 30 + [1] * 30 + [4] * 3)
    np.random.default_rng(0).shuffle(y)
    draws = list(label_samples(y, shots=5, draws=4, seed=7))
    for chosen in draws:
        assert np.bincount(y[chosen]).tolist() == [5, 5, 0, 0, 3]  # all three of the class that has no more
        assert len(set(chosen.tolist())) == 13
    assert len({tuple(sorted(chosen)) for chosen in draws}) == 4
    again = label_samples(y, shots=5, draws=4, seed=7)
    assert all(np.array_equal(a, b) for a, b in zip(draws, again, strict=True))
    other = label_samples(y, shots=5, draws=4, seed=8)
    assert not any(np.array_equal(a, b) for a, b in zip(draws, other, strict=True))
    more = list(label_samples(y, shots=5, draws=6, seed=7))  # more draws keep the first ones
    assert all(np.array_equal(a, b) for a, b in zip(draws, more, strict=False))
