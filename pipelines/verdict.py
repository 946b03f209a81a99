"""The verdict in words: did pretraining work, is it worth it with these labels, what to do. Pure functions."""

import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import mean, stdev

from scipy.stats import t as student

from pipelines.scores import ALL, Score

CONTROLS = ("supervised", "pseudolabel", "fixmatch")
READ = {"linear": "with a linear probe", "knn": "by nearest neighbours", "finetune": "fine-tuned"}
SCRATCH = {"supervised": "supervised training", "pseudolabel": "pseudo-labelling", "fixmatch": "FixMatch"}


@dataclass(frozen=True, order=True)
class Approach:
    """A way to a classifier: a run and how its encoder is read."""

    who: str
    how: str

    @property
    def pretrained(self) -> bool:
        return not (self.who == "pixels" or self.who.startswith(("random-", *(f"{c}-" for c in CONTROLS))))

    def __str__(self) -> str:
        first, _, rest = self.who.partition("-")
        if self.who == "pixels":
            return f"raw pixels {READ[self.how]}"
        if first == "random":
            return f"a random encoder {READ[self.how]}"
        if first in SCRATCH:
            return f"{SCRATCH[first]} of {rest}'s backbone from scratch"
        return f"{first} {READ[self.how]}" + (" with pseudo-labels" if rest else "")


Cells = dict[str, dict[Approach, list[Score]]]
Shares = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Difference:
    """Of two accuracies on test in percent, means over their pairs; margin: half of the 95 % interval of `points`."""

    ours: float
    theirs: float
    margin: float

    @property
    def points(self) -> float:
        return self.ours - self.theirs

    @property
    def outcome(self) -> int:
        """1 or -1 where it is more than noise, else 0."""
        return 0 if abs(self.points) <= self.margin else int(math.copysign(1, self.points))


def cells(scores: Iterable[Score]) -> Cells:
    """Labels a class, ascending, `all` last → approach → its scores."""
    found: Cells = {}
    for s in sorted(scores, key=lambda s: math.inf if s.labels == ALL else int(s.labels)):
        found.setdefault(s.labels, {}).setdefault(Approach(s.who, s.how), []).append(s)
    return found


def contested(scores: Iterable[Score]) -> Cells:
    """The label counts with which something was trained from scratch, where there are any: raw pixels prove little."""
    every = cells(scores)
    found = {n: cell for n, cell in every.items() if any(a.who.partition("-")[0] in CONTROLS for a in cell)}
    return found or every


def difference(ours: Sequence[Score], theirs: Sequence[Score], images: int) -> Difference:
    """Paired by seed and draw where both have the seed, else by draw. images: of the test split.

    Two independent sources of noise: labels and seeds (Student's interval over the pairs, where there are two or more),
    and the choice of the test images (discordant answers of independent errors).
    """
    by_both = {(s.seed, s.draw): s.accuracy for s in theirs}
    by_draw = {s.draw: s.accuracy for s in theirs}
    found = [(s.accuracy, by_both.get((s.seed, s.draw), by_draw.get(s.draw))) for s in ours]
    pairs = [(a, b) for a, b in found if b is not None]
    n, (right, other) = len(pairs), (mean(side) / 100 for side in zip(*pairs, strict=True))
    of_pairs = student.ppf(0.975, n - 1) * stdev(a - b for a, b in pairs) / math.sqrt(n) if n > 1 else 0.0
    discordant = right * (1 - other) + other * (1 - right)
    of_images = 100 * 1.96 * math.sqrt(max(0.0, discordant - (right - other) ** 2) / images)
    return Difference(100 * right, 100 * other, math.hypot(of_pairs, of_images))


def best(cell: Mapping[Approach, Sequence[Score]]) -> Approach:
    """The best on val, so that naming it does not flatter its figure on test."""
    return max(cell, key=lambda approach: mean(s.val for s in cell[approach]))


def worth(scores: Iterable[Score], images: int, shares: Shares = types.MappingProxyType({})) -> str:
    """With how many labels a class the best pretrained approach beats the best other one, and by what.

    shares: control and label count → the images of a training from scratch, as a share of the pretraining's.
    """
    outcomes = []
    for labels, cell in contested(scores).items():
        sides = [{a: s for a, s in cell.items() if a.pretrained is pretrained} for pretrained in (True, False)]
        if all(sides):
            ours, theirs = (best(side) for side in sides)
            outcomes.append((labels, ours, theirs, difference(cell[ours], cell[theirs], images)))
    if not outcomes:
        return "There is nothing to compare pretraining with."
    said = []
    for outcome, what in ((1, "pretraining wins"), (-1, "pretraining loses"), (0, "the difference is within noise")):
        members = [found for found in outcomes if found[3].outcome == outcome]
        if not members:
            continue
        labels, ours, theirs, d = max(members, key=lambda found: abs(found[3].points))
        share = shares.get((theirs.who.partition("-")[0], labels), 1.0)
        trained = f" on {100 * share:.0f} % of pretraining's images" if share < 1 else ""
        most = "" if len(members) == 1 else f"most {counts([labels])}: "
        figures = f"{most}{d.ours:.1f} % by {ours}, {d.theirs:.1f} % by {theirs}{trained}"
        span = counts([found[0] for found in members])
        said.append(f"{span} {what} ({figures}; {d.points:+.1f} ± {d.margin:.1f} points)")
    return capital("; ".join(said)) + "."


def leaders(scores: Iterable[Score], images: int) -> str:
    """Which approach is the best from which label count on, and where the next one is within noise of it."""
    found = []
    for labels, cell in cells(scores).items():
        first = best(cell)
        others = {a: s for a, s in cell.items() if a != first}
        close = [a for a in others if not difference(cell[first], cell[a], images).outcome]
        found.append((labels, first, close))
    said = []
    for first, group in groupby(found, key=lambda leader: leader[1]):
        members = list(group)
        alike = [labels for labels, _, close in members if close]
        noise = ""
        if alike:
            n = sum(len(close) for _, _, close in members)
            where = "" if len(alike) == len(members) else f"{counts(alike)} "
            noise = f" ({where}within noise of {'another' if n == 1 else 'others'})"
        said.append(f"{counts([labels for labels, _, _ in members])} the best is {first}{noise}")
    return capital("; ".join(said)) + "."


def counts(labels: Sequence[str]) -> str:
    """`with 1, 5 and 10 labels a class`, `with all labels`, `with 50 labels a class and with all`."""
    few = [n for n in labels if n != ALL]
    if not few:
        return "with all labels"
    plural = "" if few == ["1"] else "s"
    return f"with {listed(few)} label{plural} a class" + (" and with all" if ALL in labels else "")


def health(diagnoses: Mapping[str, Mapping[str, str]]) -> str:
    """What the label-free signals say of the trainings."""
    if not diagnoses:
        return "Nothing was seen of how the trainings went."
    ill = {m: d for m, d in diagnoses.items() if d["name"] != "healthy"}
    well = [m for m in diagnoses if m not in ill]
    said = [f"{listed(well)} look{'s' if len(well) == 1 else ''} healthy"] if well else []
    said += [f"{m}: {d['name']}, {d['because']}; {d['change']}" for m, d in ill.items()]
    return ("Training went well: " if not ill else "Not every training went well: ") + "; ".join(said) + "."


def advice(scores: Sequence[Score], champion: str, images: int, shares: Shares = types.MappingProxyType({})) -> str:
    """What to do: one sentence that follows from `worth`'s figures."""
    wins, ties = [], []
    for labels, cell in contested(scores).items():
        ours = {a: s for a, s in cell.items() if a.pretrained}
        theirs = {a: s for a, s in cell.items() if not a.pretrained}
        if ours and theirs:
            outcome = difference(cell[best(ours)], cell[best(theirs)], images).outcome
            wins += [labels] if outcome > 0 else []
            ties += [labels] if outcome == 0 else []
    if wins:
        short = sorted({control for (control, labels), share in shares.items() if share < 1 and labels in wins})
        unfair = f", though not at equal cost yet: raise the budget of {listed(short)} to 1" if short else ""
        return f"Use {champion}, which is served as the champion: it pays {counts(wins)}{unfair}."
    if ties:
        return (
            f"Pretraining and the best way without it are level: {champion} is served, one training for every question "
            "that labels may ask; more images or epochs may part them."
        )
    return f"Do not use {champion} for these classes: simpler ways are better; try more epochs or more images."


def sentences(
    scores: Sequence[Score],
    diagnoses: Mapping[str, Mapping[str, str]],
    champion: str,
    images: int,
    unlabelled: str,
    shares: Shares = types.MappingProxyType({}),
) -> list[str]:
    """The verdict in three sentences. images: of the test split; unlabelled: what finding a second view is worth."""
    if not scores:
        return [
            health(diagnoses),
            f"There are no labels, so that nothing here says what the encoders are good for; {champion} finds "
            f"a second view of an image of val most often, {unlabelled}.",
            f"Look at {champion}'s nearest neighbours: if they are what you would call similar, use it; labelling ten "
            "images a class would be enough to measure it.",
        ]
    return [health(diagnoses), worth(scores, images, shares), advice(scores, champion, images, shares)]


def listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
