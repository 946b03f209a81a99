"""What to do with the champion, by its own scores in the way it is used. Pure functions, a sentence for each claim."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipelines.evaluation.approach import Approach, Cells, best, cells, contested, title
from pipelines.evaluation.champion import READ
from pipelines.evaluation.contest import OUTCOMES, against_the_rest
from pipelines.evaluation.difference import SEEDS, Difference
from pipelines.evaluation.pairs import corrected, difference
from pipelines.evaluation.scores import Score
from pipelines.evaluation.words import at, capital, percent, seeds

Use = Literal["embeddings", "finetuning"]


@dataclass(frozen=True)
class Outcome:
    """The difference of one approach to another at one label count."""

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


def advice(scores: Sequence[Score], champion: str, use: Use) -> tuple[str, ...]:
    """Where the champion helps and where it does not, as it is used; for embeddings also what they add."""
    found = champions(contested(scores), champion, use)
    added = vectors(cells(scores), champion) if use == "embeddings" else ()
    return (*used(found, title(champion), use), *added)


def used(found: Sequence[Outcome], champion: str, use: Use) -> Iterator[str]:
    """The champion as it is used, beside the best result without pretraining."""
    wins, losses, ties, unknown = by_outcome(found)
    do, result, beat = {
        "embeddings": (f"use {champion}'s embeddings", f"{champion}'s embeddings", "they beat"),
        "finetuning": (f"fine-tune {champion}", f"Fine-tuned {champion}", "it beats"),
    }[use]
    if wins:
        yield f"{capital(do)}: {beat} the best result without pretraining {at(labels_of(wins))}."
    if losses:
        most = furthest(losses)
        yield f"Do not {do} {at(labels_of(losses))}: {most.other} is better ({shown(losses, most.turned())})."
    if ties:
        most = furthest(ties)
        yield f"No clear difference between {result} and {most.other} {at(labels_of(ties))} ({shown(ties, most)})."
        yield "One pretrained encoder can be reused for new label sets. More images or epochs may show a difference."
    if unknown:
        yield from seen(result, None, unknown)
        yield f"A different seed may change this. Set seeds={SEEDS} to know whether to {do}."
    if not found:
        yield f"{result}: there is nothing to compare with."


def by_outcome(found: Sequence[Outcome]) -> list[list[Outcome]]:
    """Wins, losses, ties, and those of too few seeds."""
    return [[o for o in found if o.difference.outcome == outcome] for outcome in OUTCOMES]


def seen(ours: str, other: str | None, found: Sequence[Outcome]) -> Iterator[str]:
    """What was measured with too few seeds, without a claim. other: its name; None: that of each outcome."""
    for verb, some in (
        ("did better than", [o for o in found if o.difference.points > 0]),
        ("did worse than", [o for o in found if o.difference.points < 0]),
        ("did as well as", [o for o in found if o.difference.points == 0]),
    ):
        if some:
            most = furthest(some)
            yield (
                f"With {seeds(most.difference.seeds)}, {ours} {verb} {other or most.other} {at(labels_of(some))} "
                f"({shown(some, most)})."
            )


def labels_of(outcomes: Sequence[Outcome]) -> list[str]:
    return [o.labels for o in outcomes]


def shown(outcomes: Sequence[Outcome], most: Outcome) -> str:
    """The figures of one of them, with its label count where there are several."""
    return most.figures if len(outcomes) == 1 else str(most)


def furthest(outcomes: Sequence[Outcome]) -> Outcome:
    """The one of the largest difference."""
    return max(outcomes, key=lambda o: abs(o.difference.points))


def champions(found: Cells, champion: str, use: Use) -> list[Outcome]:
    """The champion as it is used, against the best approach without pretraining; by its own scores."""
    outcomes = []
    for labels, cell in found.items():
        ours = {a: s for a, s in cell.items() if is_used(a, champion, use)}
        if ours and (rest := against_the_rest(cell)):
            other, differences = rest
            outcomes.append(Outcome(labels, other, differences[best(ours)]))
    return outcomes


def is_used(approach: Approach, champion: str, use: Use) -> bool:
    """Whether this is the champion, read in the way that it will be used."""
    return approach.how == READ[use] and approach.who in (champion, f"{champion}-pseudolabel")


def vectors(found: Cells, champion: str) -> Iterator[str]:
    """The champion's embeddings beside those of others, by the same linear probe.

    Raw pixels and a random encoder are named in any case. Of the other methods those that are better are named, so
    their differences are corrected for their number.
    """
    ours, others = Approach(champion, "linear"), dict[Approach, list[Outcome]]()
    for labels, cell in found.items():
        rivals = [a for a in cell if a != ours and a.how == "linear"] if ours in cell else []
        differences = {a: difference(cell[ours], cell[a]) for a in rivals}
        methods = [a for a in rivals if a.pretrained]
        differences |= dict(zip(methods, corrected([differences[a] for a in methods]), strict=True))
        for other, d in differences.items():
            others.setdefault(other, []).append(Outcome(labels, other, d))
    plain = {"pixels": "raw pixels", f"random-{champion}": "a random encoder"}
    for other, outcomes in others.items():
        if other.who in plain:
            yield from beside(f"{title(champion)}'s embeddings", plain[other.who], outcomes)
    for other, outcomes in others.items():
        if other.pretrained:
            yield from better(other, title(champion), outcomes)


def beside(ours: str, other: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Where the champion's embeddings are better than what took no training, where worse, and where nobody knows."""
    above, below, unclear, unknown = by_outcome(outcomes)
    if above:
        yield f"{ours} beat {other} {at(labels_of(above))} ({shown(above, furthest(above))})."
    if below:
        yield f"{ours} are worse than {other} {at(labels_of(below))} ({shown(below, furthest(below))})."
    if unclear:
        most = furthest(unclear)
        yield f"No clear difference between {ours} and {other} {at(labels_of(unclear))} ({shown(unclear, most)})."
    yield from seen(ours, other, unknown)


def better(other: Approach, champion: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Where another method has better embeddings; with too few seeds, where it did better beyond the test images."""
    _, below, _, unknown = by_outcome(outcomes)
    if below:
        figures = shown(below, furthest(below).turned())
        yield f"{title(other.who)} has better embeddings than {champion} {at(labels_of(below))} ({figures})."
    if ahead := [o for o in unknown if o.difference.beyond_images < 0]:
        n, where = seeds(ahead[0].difference.seeds), at(labels_of(ahead))
        figures = shown(ahead, furthest(ahead).turned())
        yield f"With {n}, {title(other.who)}'s embeddings did better than {champion}'s {where} ({figures})."
