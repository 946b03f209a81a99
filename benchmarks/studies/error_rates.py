"""`python -m benchmarks.studies.error_rates`: how often is chance called a difference, and what is found?

It simulates runs whose true difference is known, with the noise of seeds, of label samples and of test images. The
tests hold the false alarms to 5 %. docs/explanation/evaluation.md shows the tables.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm

from benchmarks.report import markdown
from pipelines.evaluation.decision import Decision, decide
from pipelines.evaluation.difference import Answers, Difference
from serving.host.command import Parser

IMAGES, SEEDS, SEED_SDS = (500, 10_000, 50_000), (1, 3, 5, 10), (0.0, 0.7, 3.0)
EFFECTS = (1.0, 2.0, 4.0)
RUNS = 20_000
ACCURACY = 0.9
DISCORDANT = 0.08  # share of test images that one of two approaches of 90 % answers rightly and the other wrongly


@dataclass(frozen=True)
class World:
    """What is true, in percentage points.

    effect: the true difference; seed_sd: standard deviation of the difference over seeds; residual: the same over the
    label samples of one seed.
    """

    images: int
    seeds: int
    effect: float = 0.0
    seed_sd: float = 0.7
    residual: float = 0.4
    samples: int = 5

    def differences(self, runs: int, generator: np.random.Generator) -> list[Difference]:
        """What so many repetitions find. Half of the discordant images are discordant with every seed."""
        half, n = 100**2 * DISCORDANT / 2 / self.images, self.seeds
        of_seed = np.sqrt(self.seed_sd**2 + self.residual**2 / self.samples + half)
        found = self.effect + generator.normal(0, of_seed, (runs, n)) + generator.normal(0, np.sqrt(half), (runs, 1))
        means, image_error = found.mean(axis=1), float(np.sqrt(half + half / n))
        errors = found.std(axis=1, ddof=1) / np.sqrt(n) if n > 1 else np.zeros(runs)
        return [
            Difference(90.0 + mean, 90.0, error, image_error, n)
            for mean, error in zip(means.tolist(), errors.tolist(), strict=True)
        ]

    def answers(self, generator: np.random.Generator) -> tuple[Answers, Answers]:
        """Single answers of one repetition: an image is answered rightly where it is easy enough."""
        level = norm.ppf(ACCURACY)
        a_point = 0.01 / norm.pdf(level)
        hard = generator.normal(0, np.sqrt(0.5), (2, 1, 1, self.images))
        noise = generator.normal(0, np.sqrt(0.5), (2, self.seeds, self.samples, self.images))
        shift = generator.normal(0, self.seed_sd / np.sqrt(2), (2, self.seeds, 1, 1))
        shift = shift + generator.normal(0, self.residual / np.sqrt(2), (2, self.seeds, self.samples, 1))
        shift[0] += self.effect
        ours, theirs = (hard + noise < level + a_point * shift).mean(axis=2)
        return ours, theirs


def called(found: list[Difference], outcome: int) -> float:
    """The share, in percent, that has this outcome."""
    return 100 * sum(d.outcome == outcome for d in found) / len(found)


def decided(found: list[Difference], smallest: float) -> dict[str, float]:
    """Each decision, in percent."""
    counts = Counter(decide(d, smallest) for d in found)
    return {str(d): 100 * counts[d] / len(found) for d in Decision}


def main() -> None:
    Parser(prog="python -m benchmarks.studies.error_rates", description=__doc__).parse_args()
    generator = np.random.default_rng(0)
    rows = []
    for world in (World(i, n, seed_sd=sd) for sd in SEED_SDS for i in IMAGES for n in SEEDS if n > 1):
        chance = world.differences(RUNS, generator)
        true = {e: replace(world, effect=e).differences(RUNS, generator) for e in EFFECTS}
        rows.append(
            {"seed sd": world.seed_sd, "test images": world.images, "seeds": world.seeds}
            | {"false alarms, %": called(chance, 1) + called(chance, -1)}
            | {f"finds {e:.0f} point{'s' * (e > 1)}, %": called(found, 1) for e, found in true.items()}
        )
    studies = [
        {"seeds": n, "true difference": f"{e:+.0f}".replace("-", "−")} | decided(found, 1.0)
        for n in (3, 5, 10)
        for e in (-2.0, 0.0, 1.0, 2.0, 4.0)
        if (found := World(10_000, n, effect=e).differences(RUNS, generator))
    ]
    print(f"{markdown(rows)}\n\nSmallest difference that matters: 1 point; 10,000 test images; seed sd 0.7.\n")
    print(markdown(studies))


if __name__ == "__main__":
    main()
