"""Paired differences and their noise."""

import math

import pytest
from scipy import stats

from pipelines.evaluation.score_pairs import difference
from pipelines.evaluation.scores import Score


def test_a_difference_is_that_of_the_pairs() -> None:
    ours = [
        Score("a", "linear", "1", seed, sample, 80.0 + 3 * sample + seed, 0) for seed in range(2) for sample in range(3)
    ]
    theirs = [Score("b", "linear", "1", seed, sample, 70.0 + 3 * sample, 0) for seed in range(2) for sample in range(3)]
    d = difference(ours, theirs, images=10**9)
    paired = stats.ttest_rel([s.accuracy for s in ours], [s.accuracy for s in theirs])
    interval = paired.confidence_interval(0.95)
    assert d.points == pytest.approx(10.5)
    assert d.pairs == 6
    assert d.margin == pytest.approx((interval.high - interval.low) / 2, rel=1e-3)
    assert d.error == pytest.approx(10.5 / paired.statistic, rel=1e-2)
    assert str(d) == "+10.5 points (95 % interval +9.9 to +11.1)"


def test_a_baseline_of_one_seed_is_paired_by_the_label_sample() -> None:
    ours = [Score("a", "linear", "1", seed, sample, 80.0 + sample, 0) for seed in (0, 7) for sample in range(3)]
    pixels = [Score("pixels", "linear", "1", 0, sample, 70.0 + sample, 0) for sample in range(3)]
    d = difference(ours, pixels, images=10**9)
    assert d.points == pytest.approx(10)
    assert d.margin == pytest.approx(0, abs=0.01)


def test_val_is_read_where_that_is_asked() -> None:
    ours, theirs = (
        [Score(who, "linear", "1", 0, sample, 0, 50 + k) for sample in range(2)] for k, who in enumerate("ba")
    )
    assert difference(ours, theirs, 100, on="val").points == pytest.approx(-1)


def test_one_pair_leaves_the_noise_of_training_unknown() -> None:
    """However many images there are: another seed may change it."""
    ours, theirs = [Score("a", "linear", "all", 0, 0, 60, 0)], [Score("b", "linear", "all", 0, 0, 50, 0)]
    d = difference(ours, theirs, images=100)
    variance = (0.6 * 0.5 + 0.5 * 0.4 - 0.1**2) / 100  # of the mean of a −1, 0 or 1 an image
    assert d.margin == pytest.approx(196 * math.sqrt(variance))
    assert difference(ours, theirs, 10**6).outcome is None
    assert (d.beyond_images, difference(theirs, ours, 10_000).beyond_images) == (0, -1)
    assert str(d) == "+10.0 points"
