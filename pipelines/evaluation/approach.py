"""A way to a classifier, what it is called, and the scores of those that were tried."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from models.methods import BASELINES, TITLES
from pipelines.evaluation.scores import ALL, INITIAL, Score

PLAIN = {"random": "random encoder", "pixels": "raw pixels", INITIAL: "starting weights"}  # what learnt nothing here
PROBES = {"linear": "linear probe", "knn": "kNN"}


def title(key: str) -> str:
    """What a method or a baseline is called in text for people."""
    return (TITLES | PLAIN).get(key, key)


@dataclass(frozen=True, order=True)
class Approach:
    """A way to a classifier: a run and how its encoder is read."""

    who: str
    how: str

    @property
    def kind(self) -> str:
        """The method, the baseline, `random`, `pixels` or `initial`."""
        return self.who.partition("-")[0]

    @property
    def pretrained(self) -> bool:
        """Whether it was pretrained here."""
        return self.kind not in {*BASELINES, *PLAIN}

    @property
    def encoder(self) -> str:
        """What was trained: `SimCLR`, `SimCLR + pseudo-labels`, `FixMatch, backbone of SimCLR`, `raw pixels`."""
        rest = self.who.partition("-")[2]
        if self.pretrained:
            return title(self.kind) + (" + pseudo-labels" if rest else "")
        if self.kind == INITIAL:
            return f"{title(self.kind)} of {title(rest)}"
        return title(self.kind) + (f", backbone of {title(rest)}" if rest else "")

    @property
    def classifier(self) -> str:
        """`linear probe`, `kNN`, `fine-tuning` or `from scratch`."""
        return PROBES.get(self.how, "from scratch" if self.kind in BASELINES else "fine-tuning")

    def __str__(self) -> str:
        name = self.encoder if self.kind == INITIAL else title(self.kind)
        if self.how in PROBES:
            return f"{name} + {PROBES[self.how]}"
        if self.kind == INITIAL:
            return f"fine-tuned {name}"
        if not self.pretrained:
            return name
        return f"fine-tuned {name}" + (" with pseudo-labels" if "-" in self.who else "")


Cells = dict[str, dict[Approach, list[Score]]]
Shares = Mapping[tuple[str, str], float]  # baseline, label count → its share of pretraining's images


def cells(scores: Iterable[Score]) -> Cells:
    """Labels per class, ascending, `all` last → approach → its scores."""
    found: Cells = {}
    for s in sorted(scores, key=lambda s: math.inf if s.labels == ALL else int(s.labels)):
        found.setdefault(s.labels, {}).setdefault(Approach(s.who, s.how), []).append(s)
    return found


def contested(scores: Iterable[Score]) -> Cells:
    """The label counts at which something was trained from scratch; all of them where nothing was.

    To beat raw pixels alone proves little.
    """
    every = cells(scores)
    found = {n: cell for n, cell in every.items() if any(a.kind in BASELINES for a in cell)}
    return found or every


def best(cell: Mapping[Approach, Sequence[Score]]) -> Approach:
    """The best on val, so that naming it does not flatter its figure on test."""
    return max(cell, key=lambda approach: mean(s.val for s in cell[approach]))
