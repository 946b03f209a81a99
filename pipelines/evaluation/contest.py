"""Did pretraining help? The best approach with it against the best without, at each label count. Pure functions."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from models.methods import BASELINES
from pipelines.evaluation.approach import Approach, Shares, best, cells, contested, title
from pipelines.evaluation.score_pairs import Difference, difference
from pipelines.evaluation.scores import Score
from pipelines.evaluation.verdict import Figure
from pipelines.evaluation.words import at, capital, listed, percent

OUTCOMES = (1, -1, 0, None)  # a win, a loss, a tie, and one run each, of which nobody knows


@dataclass(frozen=True)
class Contest:
    """The best pretrained approach and the best other one at one label count.

    samples: the label samples of the other one, if it has fewer; else None.
    """

    labels: str
    ours: Approach
    theirs: Approach
    difference: Difference
    samples: int | None = None


def contests(scores: Iterable[Score], images: int) -> list[Contest]:
    """One per label count at which both sides were tried. images: of the test split."""
    found = []
    for labels, cell in contested(scores).items():
        sides = [{a: s for a, s in cell.items() if a.pretrained is pretrained} for pretrained in (True, False)]
        if all(sides):
            ours, theirs = (best(side) for side in sides)
            all_samples, samples = ({s.sample for s in cell[side]} for side in (ours, theirs))
            fewer = len(samples) if samples < all_samples else None
            found.append(Contest(labels, ours, theirs, difference(cell[ours], cell[theirs], images), fewer))
    return found


def by_outcome(found: Sequence[Contest]) -> list[list[Contest]]:
    """Wins, losses, ties, and those of one run each."""
    return [[c for c in found if c.difference.outcome == outcome] for outcome in OUTCOMES]


def answer(found: Sequence[Contest]) -> str:
    """Whether pretraining helped, and at which label counts: one sentence."""
    wins, losses, ties, unknown = by_outcome(found)
    clauses = []
    if wins:
        clauses.append(f"pretraining helped {at(labels_of(wins))}")
    if losses:
        better = {str(c.theirs) for c in losses}
        name = better.pop() if len(better) == 1 else "the best result without it"
        clauses.append(
            f"{'it' if wins else 'pretraining'} did not help {at(labels_of(losses))}, where {name} did better"
        )
    if ties:
        clauses.append(f"no clear winner {at(labels_of(ties), 'or')}")
    if clauses:
        alone = ": any difference may be chance" if not (wins or losses) else ""
        return f"{capital('; '.join(clauses))}{alone}."
    if unknown:
        return "One training run each cannot show whether pretraining helped: set seeds to 3."
    return "Nobody can say whether pretraining helped: there is nothing to compare it with."


def labels_of(found: Sequence[Contest]) -> list[str]:
    return [c.labels for c in found]


def figures(found: Sequence[Contest], shares: Shares) -> tuple[Figure, ...]:
    """Both sides and their difference, at the fewest labels of the outcome that the answer begins with."""
    if not found:
        return ()
    first = next(group for group in by_outcome(found) if group)[0]
    d, share = first.difference, shares.get((first.theirs.who, first.labels), 1.0)
    saw = f", which saw {100 * share:.0f} % as many images as pretraining" if share < 1 else ""
    common = f" with the {first.samples} label samples of {first.theirs}" if first.samples else ""
    chance = "; 0 is inside, so it may be chance" if d.outcome == 0 else ""
    return (
        Figure(f"Best pretrained {at([first.labels])}", percent(d.ours), f"test accuracy of {first.ours}{common}"),
        Figure("Best without pretraining", percent(d.theirs), f"test accuracy of {first.theirs}{saw}"),
        Figure(
            "Difference",
            str(d).partition(" (")[0],
            f"{d.interval}{chance}" if d.pairs > 1 else "one training run each, so it may be chance",
        ),
    )


def leaders(scores: Iterable[Score], images: int) -> list[str]:
    """Which approach is the best on val from which label count on, and where others are level with it: a line each."""
    found = []
    for labels, cell in cells(scores).items():
        first = best(cell)
        close = any(a != first and not difference(cell[first], s, images).beyond_images for a, s in cell.items())
        found.append((labels, first, close))
    lines = []
    for first, group in groupby(found, key=lambda leader: leader[1]):
        members = list(group)
        alike = [labels for labels, _, close in members if close]
        where = "" if len(alike) == len(members) else f" {at(alike)}"
        noise = f" Others are not clearly worse{where}." if alike else ""
        lines.append(f"{capital(at([labels for labels, *_ in members]))}: {first}.{noise}")
    return lines


def caveats(scores: Sequence[Score], found: Sequence[Contest], shares: Shares) -> Iterator[str]:
    """What weakens the answer, a sentence or two each."""
    *known, unknown = by_outcome(found)
    if len({s.seed for s in scores if Approach(s.who, s.how).pretrained}) == 1:
        yield "Each method was trained with one seed. Set seeds=3 to see how much the result depends on the seed."
    short = {who: share for (who, labels), share in shares.items() if share < 1 and labels in labels_of(found)}
    if short:
        low, high = (f"{100 * of(short.values()):.0f}" for of in (min, max))
        budgets = listed([f"{name}.budget" for name in BASELINES if any(who.startswith(f"{name}-") for who in short)])
        yield (
            f"Training from scratch saw {low if low == high else f'{low} to {high}'} % as many images as pretraining. "
            f"Set {budgets} to 1 (as many as pretraining) for an equal comparison."
        )
    yield from compared(scores)
    if unknown and any(known):
        yield f"{capital(at(labels_of(unknown)))} each approach was trained once, so no winner is named there."


def compared(scores: Sequence[Score]) -> Iterator[str]:
    """Which baselines were trained at which label counts."""
    every = cells(scores)
    counts = {name: tuple(n for n, cell in every.items() if any(a.kind == name for a in cell)) for name in BASELINES}
    trained = {name: where for name, where in counts.items() if where}
    if not trained:
        yield "No baseline was trained from scratch: only raw pixels and random encoders stand on the other side."
        return
    groups = {where: [title(name) for name in trained if trained[name] == where] for where in trained.values()}
    for where, names in groups.items():
        if missing := [n for n in every if n not in where]:
            yield f"{capital(listed(names))} {'was' if len(names) == 1 else 'were'} not measured {at(missing, 'or')}."
