"""Differences and their noise, of seeds and of test images."""

import math

import numpy as np
import pytest
from scipy import stats

from pipelines.evaluation.difference import Difference, of_answers, of_figures, of_shares


def test_the_unit_is_the_seed() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = (generator.random((4, 10_000)) for _ in range(2))
    d = of_answers(ours, theirs)
    paired = stats.ttest_rel(100 * ours.mean(1), 100 * theirs.mean(1))
    images = 100 * (ours - theirs).mean(0)
    assert d.points == pytest.approx(100 * (ours.mean() - theirs.mean()))
    assert d.seeds == 4
    assert d.seed_error == pytest.approx(d.points / paired.statistic)
    assert d.image_error == pytest.approx(stats.sem(images))
    assert d.margin == pytest.approx(math.hypot(stats.t.ppf(0.975, 3) * d.seed_error, 1.959964 * d.image_error))
    assert (d.low, d.high) == (d.points - d.margin, d.points + d.margin)
    assert d.error == pytest.approx(math.hypot(d.seed_error, d.image_error))


def test_answers_that_both_share_are_no_noise() -> None:
    """Of 100 images both miss the same 20; ours gets 10 more."""
    theirs = np.repeat([[0.0, 1.0]], [30, 70], axis=1).repeat(3, axis=0)
    ours = np.repeat([[0.0, 1.0]], [20, 80], axis=1).repeat(3, axis=0)
    d = of_answers(ours, theirs)
    assert d.ours == pytest.approx(80)
    assert d.theirs == pytest.approx(70)
    assert d.seed_error == 0
    assert d.image_error == pytest.approx(100 * math.sqrt(0.1 * 0.9 / 99))


def test_what_has_no_seed_is_compared_with_every_seed() -> None:
    ours = np.array([[1.0, 1.0, 0.5], [1.0, 0.5, 0.0], [1.0, 1.0, 1.0]])
    pixels = np.array([[0.0, 1.0, 0.0]])
    d, repeated = of_answers(ours, pixels), of_answers(ours, pixels.repeat(3, axis=0))
    assert d == repeated
    assert d.seeds == 3


def test_figures_without_images_have_the_noise_of_seeds_alone() -> None:
    d = of_figures([3.0, 4.0, 6.0], [1.0, 1.0, 1.0])
    paired = stats.ttest_rel([3.0, 4.0, 6.0], [1.0, 1.0, 1.0])
    interval = paired.confidence_interval(0.95)
    assert d.image_error == 0
    assert d.low == pytest.approx(interval.low)
    assert d.high == pytest.approx(interval.high)
    assert d.p_value == pytest.approx(paired.pvalue)


def test_the_interval_of_another_level_ends_at_0_where_the_p_value_says() -> None:
    d = Difference(90, 88, seed_error=0.4, image_error=0.5, seeds=5)
    assert d.outcome == 1
    at = d.at_level(1 - d.p_value)
    assert at.low == pytest.approx(0, abs=1e-6)
    assert d.at_level(0.999).outcome == 0
    assert str(d.at_level(0.975)) == "+2.0 points (97.5 % interval +0.2 to +3.8)"
    assert Difference(90, 90, 0.4, 0.5, 5).p_value == Difference(95, 90, 0.4, 0.5, 2).p_value == 1
    assert Difference(90, 80, 0.0, 0.0, 3).p_value == 0


@pytest.mark.parametrize(("seeds", "said"), [(1, "one seed"), (2, "two seeds")])
def test_too_few_seeds_call_nothing_different(seeds: int, said: str) -> None:
    d = of_answers(np.ones((seeds, 100)), np.zeros((1, 100)))
    assert (d.outcome, d.beyond_images) == (None, 1)
    assert str(d) == f"+100.0 points ({said}: a different seed may change this)"


def test_two_shares_of_the_same_images() -> None:
    d = of_shares(60, 50, images=100)
    assert d.margin == pytest.approx(195.9964 * math.sqrt((0.6 * 0.5 + 0.5 * 0.4 - 0.1**2) / 100), rel=1e-6)
    assert (d.beyond_images, of_shares(60, 50, 1000).beyond_images, of_shares(50, 60, 1000).beyond_images) == (0, 1, -1)
