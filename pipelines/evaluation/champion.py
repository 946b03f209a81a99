"""Which encoder becomes the champion: the best on val for the use that it is meant for. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from pipelines.evaluation.approach import title
from pipelines.evaluation.score_pairs import difference
from pipelines.evaluation.scores import How, Score
from pipelines.evaluation.words import at, percent

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
    d = difference(best.val, candidate.val, images, on="val")
    return d.points > d.error


def caution(images: int) -> str:
    """What is said of a choice by few images."""
    return f" {images} validation images are few, so this choice is uncertain." if images < FEW else ""


def what_is_read(use: str, labels: str) -> str:
    """`Validation accuracy of a linear probe at 5 labels per class`."""
    how = {"embeddings": "a linear probe", "finetuning": "fine-tuning"}[use]
    return f"Validation accuracy of {how} {at([labels])}"
