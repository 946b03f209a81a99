"""Which encoder becomes the champion: the best on val for the use that it is meant for. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Self

from pipelines.evaluation.approach import title
from pipelines.evaluation.difference import of_shares
from pipelines.evaluation.pairs import difference
from pipelines.evaluation.scores import How, Score
from pipelines.evaluation.words import at, percent

READ: dict[str, How] = {"embeddings": "linear", "finetuning": "finetune"}  # promote.for → how an encoder is read
UNLABELLED = "retrieval"  # docs/explanation/evaluation.md says how well it ranks encoders that do have labels
FEW = 50  # images of val, below which a choice rests on little


@dataclass(frozen=True)
class Candidate:
    """score: percent of val; flops: of one image, frozen; readings: on val, paired with the others' by seed.

    Without labels there are no readings.
    """

    score: float
    flops: float
    readings: Sequence[Score] = ()

    @classmethod
    def of(cls, readings: Sequence[Score], flops: float) -> Self:
        """With the mean of its readings on val."""
        return cls(mean(s.val for s in readings), flops, readings)


@dataclass(frozen=True)
class Choice:
    """The champion, and why it was chosen: sentences that call it `it`."""

    champion: str
    reason: str


def choose(candidates: Mapping[str, Candidate], what: str, images: int) -> Choice:
    """The cheapest within one standard error of the best (Breiman 1984, section 3.4.3); of equal cost, the best.

    what: the figures are, as a sentence begins; images: of val.
    """
    ranked = sorted(candidates, key=lambda m: -candidates[m].score)
    best = candidates[ranked[0]]
    tied = [m for m in ranked if not beaten(candidates[m], best, images)]
    champion = min(tied, key=lambda m: (candidates[m].flops, ranked.index(m)))
    figures = ", ".join(f"{title(m)} {percent(candidates[m].score)}" for m in ranked)
    lead = "It did best on the validation images." if len(ranked) > 1 else "It is the only method of this run."
    if len(ranked) > 1 and candidates[ranked[1]].score == candidates[champion].score == best.score:
        lead = "No other method did better on the validation images."
    elif champion != ranked[0]:
        own, dearer = (f"{candidates[m].flops / 1e6:,.0f}" for m in (champion, ranked[0]))
        lead = (
            f"It is within one standard error of {title(ranked[0])}, which did best on the validation images. "
            f"It costs less: {own} instead of {dearer} MFLOPs per image."
        )
    return Choice(champion, f"{lead} {what}: {figures} ({images:,} images).{caution(images)}")


def beaten(candidate: Candidate, best: Candidate, images: int) -> bool:
    """By more than one standard error."""
    if best.readings:
        d = difference(best.readings, candidate.readings, on="val")
    else:
        d = of_shares(best.score, candidate.score, images)
    return d.points > d.error


def caution(images: int) -> str:
    """What is said of a choice by few images."""
    return f" {images} validation images are few, so this choice is uncertain." if images < FEW else ""


def what_is_read(use: str, labels: str) -> str:
    """`Validation accuracy of a linear probe at 5 labels per class`."""
    how = {"embeddings": "a linear probe", "finetuning": "fine-tuning"}[use]
    return f"Validation accuracy of {how} {at([labels])}"
