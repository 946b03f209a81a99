"""What to do with the champion, by its own scores in the way it is used. Pure functions, a sentence for each claim."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipelines.evaluation.approach import Approach, Cells, best, cells, contested, title
from pipelines.evaluation.champion import READ
from pipelines.evaluation.score_pairs import Difference, difference
from pipelines.evaluation.scores import Score
from pipelines.evaluation.words import at, capital, percent

Use = Literal["embeddings", "finetuning"]


@dataclass(frozen=True)
class Outcome:
    """The champion's difference to another approach at one label count."""

    labels: str
    other: Approach
    difference: Difference

    @property
    def figures(self) -> str:
        d = self.difference
        return f"{percent(d.ours)} against {percent(d.theirs)} of test images"

    def __str__(self) -> str:
        return f"{self.figures} {at([self.labels])}"

    def turned(self) -> "Outcome":
        """The same, with the other approach's figure first."""
        d = self.difference
        return replace(self, difference=replace(d, ours=d.theirs, theirs=d.ours))


def advice(scores: Sequence[Score], champion: str, use: Use, images: int) -> tuple[str, ...]:
    """Where the champion helps and where it does not, as it is used; for embeddings also what they add.

    images: of the test split.
    """
    found = against_the_rest(contested(scores), champion, use, images)
    added = vectors(cells(scores), champion, images) if use == "embeddings" else ()
    return (*used(found, title(champion), use), *added)


def used(found: Sequence[Outcome], champion: str, use: Use) -> Iterator[str]:
    """The champion as it is used, beside the best result without pretraining."""
    wins, losses, ties, unknown = ([o for o in found if o.difference.outcome == of] for of in (1, -1, 0, None))
    do, result, beat = {
        "embeddings": (f"use {champion}'s embeddings", f"{champion}'s embeddings", "they beat"),
        "finetuning": (f"fine-tune {champion}", f"Fine-tuned {champion}", "it beats"),
    }[use]
    if wins:
        yield f"{capital(do)}: {beat} the best result without pretraining {at(labels_of(wins))}."
    if losses:
        most = min(losses, key=lambda o: o.difference.points)
        yield f"Do not {do} {at(labels_of(losses))}: {most.other} is better ({shown(losses, most.turned())})."
    if ties:
        most = max(ties, key=lambda o: abs(o.difference.points))
        yield f"No clear difference between {result} and {most.other} {at(labels_of(ties))} ({shown(ties, most)})."
        yield "One pretrained encoder can be reused for new label sets. More images or epochs may show a difference."
    if unknown:
        yield f"Each approach was trained once {at(labels_of(unknown))}, so nobody knows whether to {do}. Set seeds=3."
    if not found:
        yield f"{result}: there is nothing to compare with."


def labels_of(outcomes: Sequence[Outcome]) -> list[str]:
    return [o.labels for o in outcomes]


def shown(outcomes: Sequence[Outcome], most: Outcome) -> str:
    """The figures of one of them, with its label count where there are several."""
    return most.figures if len(outcomes) == 1 else str(most)


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


def vectors(found: Cells, champion: str, images: int) -> Iterator[str]:
    """The champion's embeddings beside those of others, by the same linear probe.

    Raw pixels and a random encoder are named in any case. Another method is named where it is better beyond the noise
    of the test images.
    """
    ours, others = Approach(champion, "linear"), dict[Approach, list[Outcome]]()
    for labels, cell in found.items():
        for other in cell:
            if ours in cell and other != ours and other.how == "linear":
                d = difference(cell[ours], cell[other], images)
                others.setdefault(other, []).append(Outcome(labels, other, d))
    plain = {"pixels": "raw pixels", f"random-{champion}": "a random encoder"}
    for other, outcomes in others.items():
        if other.who in plain:
            yield from beside(f"{title(champion)}'s embeddings", plain[other.who], outcomes)
    for other, outcomes in others.items():
        if other.pretrained and (better := [o for o in outcomes if o.difference.beyond_images < 0]):
            them, figures = f"{title(other.who)} has better embeddings", shown(better, furthest(better).turned())
            yield f"{them} than {title(champion)} {at(labels_of(better))} ({figures})."


def beside(ours: str, other: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Where the champion's embeddings are better than what took no training, and where they are not."""
    above = [o for o in outcomes if o.difference.outcome == 1]
    below = [o for o in outcomes if o.difference.beyond_images < 0]
    level = [o for o in outcomes if o.difference.points < 0 and o not in below]
    if above:
        yield f"{ours} beat {other} {at(labels_of(above))} ({shown(above, furthest(above))})."
    if below:
        yield f"{ours} are worse than {other} {at(labels_of(below))} ({shown(below, furthest(below))})."
    if above and level:
        yield f"{ours} do not beat {other} {at(labels_of(level))} ({shown(level, furthest(level))})."
    if not above and not below:
        most = max(outcomes, key=lambda o: o.difference.points)
        yield f"Nothing shows that {ours} beat {other} (at best {most})."


def furthest(outcomes: Sequence[Outcome]) -> Outcome:
    """The one of the largest difference."""
    return max(outcomes, key=lambda o: abs(o.difference.points))
