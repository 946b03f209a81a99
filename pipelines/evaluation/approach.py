"""A way to a classifier, and the scores of those that were tried."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from pipelines.evaluation.scores import ALL, Score

BASELINES = ("supervised", "pseudolabel", "fixmatch")
BY = {"linear": "with a linear probe", "knn": "by nearest neighbours", "finetune": "fine-tuned"}
FROM_SCRATCH = {"supervised": "supervised training", "pseudolabel": "pseudo-labelling", "fixmatch": "FixMatch"}


@dataclass(frozen=True, order=True)
class Approach:
    """A way to a classifier: a run and how its encoder is read."""

    who: str
    how: str

    @property
    def pretrained(self) -> bool:
        return not (self.who == "pixels" or self.who.startswith(("random-", *(f"{c}-" for c in BASELINES))))

    def __str__(self) -> str:
        first, _, rest = self.who.partition("-")
        if self.who == "pixels":
            return f"raw pixels {BY[self.how]}"
        if first == "random":
            return f"a random encoder {BY[self.how]}"
        if first in FROM_SCRATCH:
            return f"{FROM_SCRATCH[first]} of {rest}'s backbone from scratch"
        return f"{first} {BY[self.how]}" + (" with pseudo-labels" if rest else "")


Cells = dict[str, dict[Approach, list[Score]]]
Shares = Mapping[tuple[str, str], float]  # a training from scratch, label count → its share of pretraining's images


def cells(scores: Iterable[Score]) -> Cells:
    """Labels a class, ascending, `all` last → approach → its scores."""
    found: Cells = {}
    for s in sorted(scores, key=lambda s: math.inf if s.labels == ALL else int(s.labels)):
        found.setdefault(s.labels, {}).setdefault(Approach(s.who, s.how), []).append(s)
    return found


def contested(scores: Iterable[Score]) -> Cells:
    """The label counts with which something was trained from scratch, where there are any: raw pixels prove little."""
    every = cells(scores)
    found = {n: cell for n, cell in every.items() if any(a.who.partition("-")[0] in BASELINES for a in cell)}
    return found or every


def best(cell: Mapping[Approach, Sequence[Score]]) -> Approach:
    """The best on val, so that naming it does not flatter its figure on test."""
    return max(cell, key=lambda approach: mean(s.val for s in cell[approach]))
