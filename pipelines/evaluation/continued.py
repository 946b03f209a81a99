"""Did it help to continue a pretraining from given weights? The method beside its starting weights. Pure functions."""

from collections.abc import Iterable, Iterator, Sequence

from pipelines.evaluation.advice import Outcome, by_outcome, furthest, labels_of, seen, shown
from pipelines.evaluation.approach import Approach, best, cells, title
from pipelines.evaluation.pairs import difference
from pipelines.evaluation.scores import INITIAL, Score
from pipelines.evaluation.words import at


def continued(scores: Iterable[Score], methods: Sequence[str]) -> tuple[str, ...]:
    """Sentences on each method that started from weights; none on the others."""
    found: dict[str, list[Outcome]] = {m: [] for m in methods}
    for labels, cell in cells(scores).items():
        for m in methods:
            hows = {a.how for a in cell if a.who == f"{INITIAL}-{m}"} & {a.how for a in cell if a.who == m}
            if hows:
                ours, theirs = (
                    best({a: cell[a] for a in (Approach(who, how) for how in sorted(hows))})
                    for who in (m, f"{INITIAL}-{m}")
                )
                found[m].append(Outcome(labels, theirs, difference(cell[ours], cell[theirs])))
    return tuple(sentence for m, outcomes in found.items() for sentence in said(title(m), outcomes))


def said(method: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The best way to read the method against the best way to read its starting weights."""
    wins, losses, ties, unknown = by_outcome(outcomes)
    if wins:
        yield (
            f"Continuing pretraining helped {method} {at(labels_of(wins))}, compared with the starting weights "
            f"({shown(wins, furthest(wins))})."
        )
    if losses:
        yield (
            f"Continuing pretraining hurt {method} {at(labels_of(losses))}: the starting weights are better "
            f"({shown(losses, furthest(losses).turned())})."
        )
    if ties:
        yield (
            f"Continuing pretraining made no clear difference to {method} {at(labels_of(ties))}, compared with the "
            f"starting weights ({shown(ties, furthest(ties))})."
        )
    if unknown:
        yield from seen(f"{method} after continued pretraining", "its starting weights", unknown)
