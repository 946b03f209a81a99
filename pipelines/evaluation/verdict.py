"""The verdict in words: did pretraining work, is it worth it with these labels, what to do. Pure functions."""

import types
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from pipelines.evaluation.advice import Use, advice
from pipelines.evaluation.approach import Shares, best, cells, contested
from pipelines.evaluation.difference import difference
from pipelines.evaluation.scores import Score
from pipelines.evaluation.words import capital, counts, listed

OUTCOMES = (
    (1, "pretraining wins"),
    (-1, "pretraining loses"),
    (0, "the difference is within noise"),
    (None, "one training each was made, whose noise is unknown"),
)


def worth(scores: Iterable[Score], images: int, shares: Shares = types.MappingProxyType({})) -> str:
    """With how many labels a class the best pretrained approach beats the best other one, and by what."""
    outcomes = []
    for labels, cell in contested(scores).items():
        sides = [{a: s for a, s in cell.items() if a.pretrained is pretrained} for pretrained in (True, False)]
        if all(sides):
            ours, theirs = (best(side) for side in sides)
            outcomes.append((labels, ours, theirs, difference(cell[ours], cell[theirs], images)))
    if not outcomes:
        return "There is nothing to compare pretraining with."
    clauses = []
    for outcome, what in OUTCOMES:
        members = [found for found in outcomes if found[3].outcome == outcome]
        if not members:
            continue
        labels, ours, theirs, d = max(members, key=lambda found: abs(found[3].points))
        share = shares.get((theirs.who, labels), 1.0)
        trained = f" on {100 * share:.0f} % of pretraining's images" if share < 1 else ""
        most = "" if len(members) == 1 else f"most {counts([labels])}: "
        figures = f"{most}{d.ours:.1f} % by {ours}, {d.theirs:.1f} % by {theirs}{trained}"
        span = counts([found[0] for found in members])
        clauses.append(f"{span} {what} ({figures}; {d})")
    return capital("; ".join(clauses)) + "."


def leaders(scores: Iterable[Score], images: int) -> str:
    """Which approach is the best from which label count on, and where the next one is within noise of it."""
    found = []
    for labels, cell in cells(scores).items():
        first = best(cell)
        others = {a: s for a, s in cell.items() if a != first}
        close = [a for a in others if not difference(cell[first], cell[a], images).beyond_images]
        found.append((labels, first, close))
    clauses = []
    for first, group in groupby(found, key=lambda leader: leader[1]):
        members = list(group)
        alike = [labels for labels, _, close in members if close]
        noise = ""
        if alike:
            n = sum(len(close) for _, _, close in members)
            where = "" if len(alike) == len(members) else f"{counts(alike)} "
            noise = f" ({where}within noise of {'another' if n == 1 else 'others'})"
        clauses.append(f"{counts([labels for labels, _, _ in members])} the best on val is {first}{noise}")
    return capital("; ".join(clauses)) + "."


def health(diagnoses: Mapping[str, Mapping[str, str]]) -> str:
    """What the label-free signals say of the trainings."""
    if not diagnoses:
        return "Nothing was seen of how the trainings went."
    others = {m: d for m, d in diagnoses.items() if d["name"] != "healthy"}
    well = [m for m in diagnoses if m not in others]
    clauses = [f"{listed(well)} look{'s' if len(well) == 1 else ''} healthy"] if well else []
    clauses += [f"{m}: {d['name']}, {d['because']}; {d['change']}" for m, d in others.items()]
    if any(d["name"] != "not judged" for d in others.values()):
        opening = "Not every training went well"
    elif not well:
        opening = "No training was judged"
    else:
        opening = "Training went well" + (" where it was judged" if others else "")
    return f"{opening}: {'; '.join(clauses)}."


def sentences(
    scores: Sequence[Score],
    diagnoses: Mapping[str, Mapping[str, str]],
    champion: str,
    use: Use,
    images: int,
    shares: Shares = types.MappingProxyType({}),
) -> list[str]:
    """The verdict in three sentences, with labels. images: of the test split."""
    return [health(diagnoses), worth(scores, images, shares), advice(scores, champion, use, images, shares)]
