"""What to do with the champion, by its own scores in the way it is used. Pure functions."""

import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.evaluation.approach import Approach, Cells, Shares, best, cells, contested
from pipelines.evaluation.champion import READ
from pipelines.evaluation.difference import Difference, difference
from pipelines.evaluation.scores import Score
from pipelines.evaluation.words import capital, counts, listed

Use = Literal["embeddings", "finetuning"]
AS = {"embeddings": "frozen", "finetuning": "fine-tuned"}


@dataclass(frozen=True)
class Outcome:
    """The champion's difference to another approach with so many labels a class."""

    labels: str
    other: Approach
    difference: Difference

    def __str__(self) -> str:
        d = self.difference
        return f"{counts([self.labels])} {d.ours:.1f} against {d.theirs:.1f} %; {d}"


def advice(
    scores: Sequence[Score], champion: str, use: Use, images: int, shares: Shares = types.MappingProxyType({})
) -> str:
    """Where the champion pays and where it does not, as it is used; for embeddings also what its vectors add.

    images: of the test split.
    """
    found = against_the_rest(contested(scores), champion, use, images)
    wins, losses, ties, unknown = ([o for o in found if o.difference.outcome == of] for of in (1, -1, 0, None))
    used, clauses = f"{champion} {AS[use]}", []
    if wins:
        labels = [o.labels for o in wins]
        short = sorted({who.partition("-")[0] for (who, n), share in shares.items() if share < 1 and n in labels})
        unfair = f", though not at equal cost yet: raise the budget of {listed(short)} to 1" if short else ""
        clauses.append(f"use {used}, the champion: it pays {counts(labels)}{unfair}")
    if losses:
        most = min(losses, key=lambda o: o.difference.points)
        clauses.append(f"do not use {used} {counts([o.labels for o in losses])}: {most.other} is better ({most})")
    if ties:
        most = max(ties, key=lambda o: abs(o.difference.points))
        clauses.append(
            f"{counts([o.labels for o in ties])} {used} is level with the best way without pretraining, {most.other} "
            f"({most})"
        )
    if unknown:
        where = f"{counts([o.labels for o in unknown])} " if clauses else ""
        clauses.append(f"{where}one training each cannot tell whether {used}, the champion, pays: set seeds to 3")
    if not clauses:
        return f"There is nothing to compare {used} with."
    more = vectors(cells(scores), champion, images) if use == "embeddings" else []
    return " ".join(f"{capital(sentence)}." for sentence in ("; ".join(clauses), *more))


def against_the_rest(found: Cells, champion: str, use: Use, images: int) -> list[Outcome]:
    """The champion as it is used, against the best approach without pretraining."""
    outcomes = []
    for labels, cell in found.items():
        ours = {a: s for a, s in cell.items() if is_used(a, champion, use)}
        theirs = {a: s for a, s in cell.items() if not a.pretrained}
        if ours and theirs:
            other = best(theirs)
            outcomes.append(Outcome(labels, other, difference(cell[best(ours)], cell[other], images)))
    return outcomes


def is_used(approach: Approach, champion: str, use: Use) -> bool:
    """Whether this is the champion, read in the way that it will be used."""
    return approach.how == READ[use] and approach.who in (champion, f"{champion}-pseudolabel")


def vectors(found: Cells, champion: str, images: int) -> list[str]:
    """Sentences on the champion's frozen features beside those of others, by the same probe.

    Raw pixels and a random encoder are named in any case, another method where it is better beyond the noise of the
    test images.
    """
    ours, others = Approach(champion, "linear"), dict[Approach, list[Outcome]]()
    for labels, cell in found.items():
        for other in cell:
            if ours in cell and other != ours and other.how == "linear":
                d = difference(cell[ours], cell[other], images)
                others.setdefault(other, []).append(Outcome(labels, other, d))
    plain = {"pixels": "raw pixels", f"random-{champion}": "a random encoder"}
    clauses = [beside(champion, plain[a.who], outcomes) for a, outcomes in others.items() if a.who in plain]
    below = {a: [o for o in of if o.difference.beyond_images < 0] for a, of in others.items() if a.pretrained}
    better = [f"{a.who} {furthest(o)}" for a, o in below.items() if o]
    return [*clauses, *([f"frozen features of {listed(better)} are better on test"] if better else [])]


def beside(champion: str, other: str, outcomes: Sequence[Outcome]) -> str:
    """Where the champion's vectors are better than what took no training, and where they are not."""
    above = [o for o in outcomes if o.difference.outcome == 1]
    below = [o for o in outcomes if o.difference.beyond_images < 0]
    level = [o for o in outcomes if o.difference.points < 0 and o not in below]
    clauses = []
    if above:
        clauses.append(f"better than {other} {counts([o.labels for o in above])} {furthest(above)}")
    if below:
        clauses.append(f"worse than {other} {counts([o.labels for o in below])} {furthest(below)}")
    if not clauses:
        most = max(outcomes, key=lambda o: o.difference.points)
        return f"nothing shows that {champion}'s vectors are better than {other} (at best {most})"
    if level and not below:
        clauses.append(f"not {counts([o.labels for o in level])} {furthest(level)}")
    return f"{champion}'s vectors are {', '.join(clauses)}"


def furthest(outcomes: Sequence[Outcome]) -> str:
    """The one of the largest difference, in brackets."""
    most = max(outcomes, key=lambda o: abs(o.difference.points))
    return f"({'most ' if len(outcomes) > 1 else ''}{most})"
