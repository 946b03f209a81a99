"""The difference of two approaches and its noise. The unit is the seed: docs/explanation/evaluation.md says why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student

from pipelines.evaluation.words import seeds

LEVEL = 0.95
SEEDS = 3  # with fewer, nothing is called different
SMALLEST_P = 1e-12
Answers = NDArray[np.float64]
"""(seeds, images): for each seed the share (0 to 1) of its label samples with which an image was answered rightly."""


@dataclass(frozen=True)
class Difference:
    """Of two means over the same seeds: of accuracies in percent, or of any other figure.

    seed_error: standard error over seeds; image_error: standard error from the choice of the test images; level: of
    the interval.
    """

    ours: float
    theirs: float
    seed_error: float
    image_error: float
    seeds: int
    level: float = LEVEL

    @property
    def points(self) -> float:
        return self.ours - self.theirs

    @property
    def error(self) -> float:
        """Standard error."""
        return math.hypot(self.seed_error, self.image_error)

    @property
    def margin(self) -> float:
        """Half of the interval of `points`. From one seed, that of the images alone."""
        return margin(self.seed_error, self.image_error, self.seeds, self.level)

    @property
    def low(self) -> float:
        return self.points - self.margin

    @property
    def high(self) -> float:
        return self.points + self.margin

    @property
    def p_value(self) -> float:
        """1 minus the level at which the interval ends at 0. With too few seeds it is 1."""
        size = abs(self.points)
        if self.seeds < SEEDS or not size:
            return 1.0

        def beyond(p: float) -> float:
            return margin(self.seed_error, self.image_error, self.seeds, 1 - p) - size

        return float(brentq(beyond, SMALLEST_P, 1)) if beyond(SMALLEST_P) > 0 else 0.0

    @property
    def beyond_images(self) -> int:
        """1 or -1 where it is more than the margin, else 0. From one seed, more than the noise of the images."""
        return 0 if abs(self.points) <= self.margin else int(math.copysign(1, self.points))

    @property
    def outcome(self) -> int | None:
        """The same; None with too few seeds."""
        return self.beyond_images if self.seeds >= SEEDS else None

    @property
    def interval(self) -> str:
        """`95 % interval −2.7 to +5.3`, or `one seed: a different seed may change this`."""
        if self.seeds < SEEDS:
            return f"{seeds(self.seeds)}: a different seed may change this"
        return f"{100 * self.level:.3g} % interval {signed(self.low)} to {signed(self.high)}"

    def at_level(self, level: float) -> "Difference":
        """The same with the interval of another level."""
        return replace(self, level=level)

    def __str__(self) -> str:
        return f"{signed(self.points)} points ({self.interval})"


def of_answers(ours: Answers, theirs: Answers) -> Difference:
    """Of two accuracies, in percent, paired by seed. One row of theirs (raw pixels) is compared with every seed."""
    paired = 100 * (ours - theirs)
    per_image = paired.mean(axis=0)
    image_error = per_image.std(ddof=1) / math.sqrt(per_image.size) if per_image.size > 1 else 0.0
    seed_error = of_seeds(paired.mean(axis=1))
    return Difference(100 * float(ours.mean()), 100 * float(theirs.mean()), seed_error, float(image_error), len(paired))


def of_figures(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Of two figures with one value per seed and no images, such as seconds. Paired by place."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return Difference(float(a.mean()), float(b.mean()), of_seeds(a - b), 0.0, a.size)


def of_shares(ours: float, theirs: float, images: int) -> Difference:
    """Of two percentages of so many images, of one run each, whose single answers were not kept.

    The answers are taken as independent, which overstates the noise.
    """
    right, other = ours / 100, theirs / 100
    discordant = right * (1 - other) + other * (1 - right)
    error = 100 * math.sqrt(max(0.0, discordant - (right - other) ** 2) / images)
    return Difference(ours, theirs, 0.0, error, 1)


def of_seeds(differences: Answers) -> float:
    """Standard error of the mean. 0 from one seed, whose noise is not known."""
    n = differences.size
    return float(differences.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0


def margin(seed_error: float, image_error: float, seeds: int, level: float) -> float:
    """Half of an interval: each source of noise with its own quantile, then added in quadrature.

    Simulated, it never errs more often than its level says. One quantile for both (Welch and Satterthwaite) does, in up
    to 7.6 % of cases where 5 % are promised.
    """
    t, z = quantiles(seeds, level)
    return math.hypot(t * seed_error, z * image_error)


@lru_cache(1024)
def quantiles(seeds: int, level: float) -> tuple[float, float]:
    """Student's over the seeds, and the normal one."""
    both = (1 + level) / 2
    return (float(student.ppf(both, seeds - 1)) if seeds > 1 else 0.0), float(norm.ppf(both))


def signed(points: float) -> str:
    """`+1.3` or `−2.7`, with the minus sign of text."""
    return f"{points:+.1f}".replace("-", "−")
