"""Which encoder becomes the champion: the best on val for the use it is meant for. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from pipelines.evaluation.difference import difference
from pipelines.evaluation.scores import How, Score
from pipelines.evaluation.words import counts

READ: dict[str, How] = {"embeddings": "linear", "finetuning": "finetune"}  # promote.for → how an encoder is read
UNLABELLED = "retrieval"  # docs/explanation/evaluation.md says how well it ranks encoders that do have labels
FEW = 50  # images of val, below which a choice rests on little


@dataclass(frozen=True)
class Candidate:
    """val: its single readings on val, paired with the others' by seed and sample; flops: of one image, frozen."""

    val: Sequence[Score]
    flops: float

    @property
    def score(self) -> float:
        """Percent."""
        return mean(s.val for s in self.val)


@dataclass(frozen=True)
class Choice:
    champion: str
    reason: str


def choose(candidates: Mapping[str, Candidate], what: str, images: int) -> Choice:
    """The cheapest within one standard error of the best (Breiman 1984, section 3.4.3); of equal cost, the best.

    what: was read, in words; images: of val.
    """
    ranked = sorted(candidates, key=lambda m: -candidates[m].score)
    best = candidates[ranked[0]]
    tied = [m for m in ranked if not beaten(candidates[m], best, images)]
    champion = min(tied, key=lambda m: (candidates[m].flops, ranked.index(m)))
    figures = ", ".join(f"{m} {candidates[m].score:.1f}" for m in ranked)
    reason = f"{what} on {images:,} images of val: {figures}"
    if champion != ranked[0]:
        own, dearer = (f"{candidates[m].flops / 1e6:,.0f}" for m in (champion, ranked[0]))
        reason += (
            f"; {champion} is within one standard error of {ranked[0]} and costs {own} MFLOPs an image against {dearer}"
        )
    return Choice(champion, f"{reason}{caution(images)}")


def beaten(candidate: Candidate, best: Candidate, images: int) -> bool:
    """By more than one standard error."""
    d = difference(best.val, candidate.val, images, on="val")
    return d.points > d.error


def caution(images: int) -> str:
    """What is said of a choice by few images."""
    return f"; {images} images say little" if images < FEW else ""


def what_is_read(use: str, labels: str) -> str:
    """`linear probe of frozen features with 5 labels a class`."""
    how = {"embeddings": "linear probe of frozen features", "finetuning": "fine-tuned"}[use]
    return f"{how} {counts([labels])}"
