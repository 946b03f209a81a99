"""What a study found: a decision for each claim, and the answer to the user's question. Pure functions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.evaluation import decision, pairs
from pipelines.evaluation.decision import Decision
from pipelines.evaluation.difference import SEEDS, Difference
from pipelines.evaluation.words import listed
from pipelines.studies import figure
from pipelines.studies.figure import Figure
from pipelines.studies.metric import HOW, kind, lower, named, unit
from pipelines.studies.study import Claim, Study

Figures = Mapping[str, Mapping[str, Figure]]  # metric → level → its figure


@dataclass(frozen=True)
class Part:
    """The level that should be better against one that should be worse. difference: in favour of the claim."""

    worse: str
    difference: Difference
    decision: Decision
    seeds_needed: int | None


@dataclass(frozen=True)
class Finding:
    """A claim, and what was measured for it. parts: empty where its levels were not run."""

    claim: Claim
    metric: str
    parts: tuple[Part, ...]
    why_not: str = ""  # why it was not run, in one sentence

    @property
    def decision(self) -> Decision | None:
        """None where nothing was measured."""
        return decision.together([part.decision for part in self.parts]) if self.parts else None

    @property
    def verdict(self) -> str:
        """`HOLDS`, `DOES NOT HOLD`, `UNDERPOWERED` or `not run`."""
        return str(self.decision) if self.decision else "not run"

    @property
    def needed(self) -> str:
        """What would decide it, or why it was not run, in one sentence; empty where it is decided."""
        if self.decision is not Decision.OPEN:
            return self.why_not
        if any(part.difference.seeds < SEEDS for part in self.parts):
            return f"At least {SEEDS} seeds are needed."
        counts = [part.seeds_needed for part in self.parts if part.decision is Decision.OPEN]
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return "No number of seeds would decide it at this difference; more test images or more training may."
        return f"About {max(known)} seeds would decide it, if the difference stays."


def findings(study: Study, scale: str, figures: Figures) -> list[Finding]:
    """One per claim."""
    return [found(claim, measured(claim.metric or study.metrics[0], figures), scale, figures) for claim in study.claims]


def measured(metric: str, figures: Figures) -> str:
    """The metric itself, or where it was not measured another one of its kind: `linear_all` for `linear_5`."""
    alike = [known for known in figures if kind(known) == kind(metric)]
    return metric if metric in figures or not alike else alike[0]


def found(claim: Claim, metric: str, scale: str, figures: Figures) -> Finding:
    """The claim's levels against each other."""
    of = figures.get(metric, {})
    if claim.scales and scale not in claim.scales:
        return Finding(claim, metric, (), f"It is decided only at the scale {listed(claim.scales, 'or')}.")
    if not of:
        return Finding(claim, metric, (), f"It needs what was not measured here: {named(metric)}.")
    if missing := [level for level in (claim.better, *claim.than) if level not in of]:
        return Finding(claim, metric, (), f"Not run here: {listed(missing)}.")
    if any(of[level].of == of[claim.better].of for level in claim.than):
        return Finding(claim, metric, (), "Its levels are the same training runs here.")
    return Finding(claim, metric, tuple(part(claim, worse, of) for worse in claim.than))


def part(claim: Claim, worse: str, of: Mapping[str, Figure]) -> Part:
    """That one part does not hold decides the claim, so its level is corrected for their number (Bonferroni)."""
    first, second = (worse, claim.better) if claim.lower else (claim.better, worse)
    d = figure.compare(of[first], of[second])
    decided = decision.decide(d, claim.by)
    if decided is Decision.FAILS:
        decided = decision.decide(d.at_level(1 - (1 - d.level) / len(claim.than)), claim.by)
    return Part(worse, d, decided, decision.seeds_needed(d, claim.by))


def answer(study: Study, figures: Figures, found: Sequence[Finding]) -> str:
    """The answer to the user's question: the best level by each accuracy, or the verdict of a claim."""
    if not figures:
        return "Nothing was measured."
    if not study.best:
        return f"{found[0].claim.claim} Here: {found[0].verdict}."
    deciding = next(iter(figures))
    others = [metric for metric in figures if kind(metric) in HOW and kind(metric) != kind(deciding)]
    return " ".join(best_of(study, metric, figures[metric]) for metric in (deciding, *others))


def best_of(study: Study, metric: str, every: Mapping[str, Figure]) -> str:
    """The best level by one metric, those that are not clearly worse, and an untrained encoder that is better."""
    of = {level: f for level, f in every.items() if not study.levels[level].untrained} or every
    best = (min if lower(metric) else max)(of, key=lambda level: of[level].mean)
    lead = f"Best by {named(metric)}: {best}, {of[best]} {unit(metric)}".rstrip() + "."
    if len(of[best].values) < SEEDS:
        lead += f" With fewer than {SEEDS} seeds, a different seed may change this."
    elif len(of) > 1:
        close = list(alike(best, of))
        lead += f" Not clearly worse: {listed(close)}." if close else " Every other level is clearly worse."
    above = [level for level in every if level not in of and (every[level].mean > of[best].mean) != lower(metric)]
    return lead + "".join(
        f" But the {level} has {every[level]} {unit(metric)}: training did not help." for level in above
    )


def alike(best: str, of: Mapping[str, Figure]) -> Iterator[str]:
    """The levels that are not clearly worse than the best one, after Holm's correction for the number of levels."""
    others = [level for level in of if level != best]
    differences = pairs.corrected([figure.compare(of[best], of[level]) for level in others])
    yield from (level for level, d in zip(others, differences, strict=True) if not d.outcome)
