"""The difference of two accuracies and its noise: paired runs, and the choice of the images that judge."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import mean, stdev
from typing import Literal

from scipy.stats import t as student

from pipelines.evaluation.scores import Score

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Of two accuracies in percent, means over their pairs.

    margin: half of the 95 % interval of `points`; error: the standard error; pairs: of runs. From one pair the noise of
    training is not known, and margin and error are those of the images alone.
    """

    ours: float
    theirs: float
    margin: float
    error: float
    pairs: int

    @property
    def points(self) -> float:
        return self.ours - self.theirs

    @property
    def beyond_images(self) -> int:
        """1 or -1 where it is more than the interval, else 0; from one pair, more than the noise of the images."""
        return 0 if abs(self.points) <= self.margin else int(math.copysign(1, self.points))

    @property
    def outcome(self) -> int | None:
        """The same; None where one pair leaves the noise of training unknown."""
        return self.beyond_images if self.pairs > 1 else None

    @property
    def interval(self) -> str:
        """`95 % interval −2.7 to +5.3`."""
        low, high = signed(self.points - self.margin), signed(self.points + self.margin)
        return f"{100 * CONFIDENCE:.0f} % interval {low} to {high}"

    def __str__(self) -> str:
        return f"{signed(self.points)} points" + (f" ({self.interval})" if self.pairs > 1 else "")


def signed(points: float) -> str:
    """`+1.3` or `−2.7`, with the minus sign of text."""
    return f"{points:+.1f}".replace("-", "−")


def difference(
    ours: Sequence[Score], theirs: Sequence[Score], images: int, on: Literal["accuracy", "val"] = "accuracy"
) -> Difference:
    """Paired by seed and sample where both have the seed, else by sample. images: that judged; on: test, or val.

    Two independent sources of noise: labels and seeds (Student's interval over the pairs, where there are two or more),
    and the choice of the images (discordant answers of independent errors).
    """
    value = attrgetter(on)
    by_both = {(s.seed, s.sample): value(s) for s in theirs}
    by_sample = {s.sample: value(s) for s in theirs}
    found = [(value(s), by_both.get((s.seed, s.sample), by_sample.get(s.sample))) for s in ours]
    pairs = [(a, b) for a, b in found if b is not None]
    n, (right, other) = len(pairs), (mean(side) / 100 for side in zip(*pairs, strict=True))
    of_pairs = stdev(a - b for a, b in pairs) / math.sqrt(n) if n > 1 else 0.0
    of_images = images_error(right, other, images)
    level = (1 + CONFIDENCE) / 2
    margin = math.hypot(student.ppf(level, n - 1) * of_pairs if n > 1 else 0.0, 1.96 * of_images)
    return Difference(100 * right, 100 * other, margin, math.hypot(of_pairs, of_images), n)


def images_error(right: float, other: float, images: int) -> float:
    """Standard error, in points, of the difference of two shares of right answers whose errors are independent."""
    discordant = right * (1 - other) + other * (1 - right)
    return 100 * math.sqrt(max(0.0, discordant - (right - other) ** 2) / images)
