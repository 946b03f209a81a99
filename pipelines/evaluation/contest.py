"""Did pretraining help? The best approach with it against the best without, at each label count. Pure functions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from models.methods import BASELINES
from pipelines.evaluation.approach import Approach, Shares, best, cells, contested, title
from pipelines.evaluation.difference import SEEDS, Difference, signed
from pipelines.evaluation.pairs import corrected, difference
from pipelines.evaluation.scores import INITIAL, Score
from pipelines.evaluation.verdict import Figure
from pipelines.evaluation.words import at, capital, listed, percent, seeds

OUTCOMES = (1, -1, 0, None)  # a win, a loss, a tie, and too few seeds, of which nobody knows


@dataclass(frozen=True)
class Contest:
    """The best pretrained approach and the best other one at one label count.

    rivals: how many approaches each side has; samples: the label samples of the other one, if it has fewer; else None.
    """

    labels: str
    ours: Approach
    theirs: Approach
    difference: Difference
    rivals: tuple[int, int]
    samples: int | None = None


def contests(scores: Iterable[Score]) -> list[Contest]:
    """One per label count at which both sides were tried."""
    found = []
    for labels, cell in contested(scores).items():
        if rest := against_the_rest(cell):
            theirs, differences = rest
            ours = best({a: cell[a] for a in differences})
            all_samples, samples = ({s.sample for s in cell[side]} for side in (ours, theirs))
            fewer = len(samples) if samples < all_samples else None
            rivals = (len(differences), len(cell) - len(differences))
            found.append(Contest(labels, ours, theirs, differences[ours], rivals, fewer))
    return found


def against_the_rest(
    cell: Mapping[Approach, Sequence[Score]],
) -> tuple[Approach, dict[Approach, Difference]] | None:
    """The best approach without pretraining, and every pretrained one's difference to it, corrected for their number.

    None where one side is empty.
    """
    ours = [a for a in cell if a.pretrained]
    theirs = {a: s for a, s in cell.items() if not a.pretrained}
    if not (ours and theirs):
        return None
    other = best(theirs)
    return other, dict(zip(ours, corrected([difference(cell[a], cell[other]) for a in ours]), strict=True))


def by_outcome(found: Sequence[Contest]) -> list[list[Contest]]:
    """Wins, losses, ties, and those of too few seeds."""
    return [[c for c in found if c.difference.outcome == outcome] for outcome in OUTCOMES]


def answer(found: Sequence[Contest]) -> str:
    """Whether pretraining helped, and at which label counts; with too few seeds what was seen."""
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
        clauses.append(f"no clear difference {at(labels_of(ties), 'or')}")
    if clauses:
        alone = ": what was measured may be chance" if not (wins or losses) else ""
        return f"{capital('; '.join(clauses))}{alone}."
    if unknown:
        first, d = unknown[0], unknown[0].difference
        both = f"{first.ours} reached {percent(d.ours)} test accuracy and {first.theirs} {percent(d.theirs)}"
        chance = f"with {seeds(d.seeds)} each: another seed may change this."
        return f"{capital(both)} {at([first.labels])}, {chance}"
    return "Nobody can say whether pretraining helped: there is nothing to compare it with."


def labels_of(found: Sequence[Contest]) -> list[str]:
    return [c.labels for c in found]


def shown(found: Sequence[Contest]) -> Contest:
    """The one at the fewest labels of the outcome that the answer begins with."""
    return next(group for group in by_outcome(found) if group)[0]


def figures(found: Sequence[Contest], shares: Shares) -> tuple[Figure, ...]:
    """Both sides and their difference in the shown contest."""
    if not found:
        return ()
    first = shown(found)
    d, share = first.difference, shares.get((first.theirs.who, first.labels), 1.0)
    saw = f", which saw {100 * share:.0f} % as many images as pretraining" if share < 1 else ""
    common = f" with the {first.samples} label samples of {first.theirs}" if first.samples else ""
    here = " here" if first.theirs.kind == INITIAL else ""  # somebody pretrained those weights
    chance = "; 0 is inside, so it may be chance" if d.outcome == 0 else ""
    return (
        Figure(f"Best pretrained {at([first.labels])}", percent(d.ours), f"test accuracy of {first.ours}{common}"),
        Figure(f"Best without pretraining{here}", percent(d.theirs), f"test accuracy of {first.theirs}{saw}"),
        Figure("Difference", f"{signed(d.points)} points", f"{d.interval}{chance}"),
    )


def leaders(scores: Iterable[Score]) -> list[str]:
    """Which approach is the best on val from which label count on, and where others are not clearly worse."""
    found, fewest = [], SEEDS
    for labels, cell in cells(scores).items():
        first = best(cell)
        others = corrected([difference(cell[first], s) for a, s in cell.items() if a != first])
        found.append((labels, first, any(d.outcome in (0, -1) for d in others)))
        fewest = min([fewest, *(d.seeds for d in others)])
    lines = []
    for first, group in groupby(found, key=lambda leader: leader[1]):
        members = list(group)
        alike = [labels for labels, _, close in members if close]
        where = "" if len(alike) == len(members) else f" {at(alike)}"
        noise = f" Others are not clearly worse{where}." if alike else ""
        lines.append(f"{capital(at([labels for labels, *_ in members]))}: {first}.{noise}")
    if fewest < SEEDS:
        lines.append(f"This is of {seeds(fewest)}. A different seed may change the order.")
    return lines


def caveats(scores: Sequence[Score], found: Sequence[Contest], shares: Shares) -> Iterator[str]:
    """What weakens the answer, a sentence or two each."""
    if found:
        yield competition(shown(found))
    short = {who: share for (who, labels), share in shares.items() if share < 1 and labels in labels_of(found)}
    if short:
        low, high = (f"{100 * of(short.values()):.0f}" for of in (min, max))
        budgets = listed([f"{name}.budget" for name in BASELINES if any(who.startswith(f"{name}-") for who in short)])
        yield (
            f"Training from scratch saw {low if low == high else f'{low} to {high}'} % as many images as pretraining. "
            f"Set {budgets} to 1 (as many as pretraining) for an equal comparison."
        )
    yield from compared(scores)


def competition(c: Contest) -> str:
    """How many approaches each best one was chosen from, and what the interval does about it."""
    ours, theirs = c.rivals
    corrects = f" The interval allows for {ours} comparisons." if ours > 1 and c.difference.outcome is not None else ""
    return (
        f"Validation images chose the best of {ours} with pretraining and the best of {theirs} without "
        f"{at([c.labels])}.{corrects}"
    )


def compared(scores: Sequence[Score]) -> Iterator[str]:
    """Which baselines were trained at which label counts."""
    every = cells(scores)
    counts = {name: tuple(n for n, cell in every.items() if any(a.kind == name for a in cell)) for name in BASELINES}
    trained = {name: where for name, where in counts.items() if where}
    initial = any(Approach(s.who, s.how).kind == INITIAL for s in scores)
    if not trained:
        also = "raw pixels, random encoders and the starting weights" if initial else "raw pixels and random encoders"
        yield f"No baseline was trained from scratch: only {also} stand on the other side."
        return
    groups = {where: [title(name) for name in trained if trained[name] == where] for where in trained.values()}
    for where, names in groups.items():
        if missing := [n for n in every if n not in where]:
            yield f"{capital(listed(names))} {'was' if len(names) == 1 else 'were'} not measured {at(missing, 'or')}."
