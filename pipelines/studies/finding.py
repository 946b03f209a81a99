"""What a study found: a decision for each claim, and the answer to the user's question. Pure functions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipelines.evaluation import decision
from pipelines.evaluation.decision import Decision
from pipelines.evaluation.difference import Difference
from pipelines.evaluation.words import listed
from pipelines.studies import figure
from pipelines.studies.figure import Figure
from pipelines.studies.metric import lower, named, unit
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
        """What would decide, in one sentence; empty where it is decided."""
        if self.decision is not Decision.OPEN:
            return ""
        counts = [part.seeds_needed for part in self.parts if part.decision is Decision.OPEN]
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return "No number of seeds would decide it at this difference; more test images or more training may."
        return f"About {max(known)} seeds would decide it, if the difference stays."


def findings(study: Study, first: str, figures: Figures) -> list[Finding]:
    """One per claim. first: the metric of claims that name none."""
    return [found(claim, claim.metric or first, figures) for claim in study.claims]


def found(claim: Claim, metric: str, figures: Figures) -> Finding:
    """The claim's levels against each other."""
    of = figures.get(metric, {})
    if not {claim.better, *claim.than} <= of.keys():
        return Finding(claim, metric, ())
    return Finding(claim, metric, tuple(part(claim, worse, of) for worse in claim.than))


def part(claim: Claim, worse: str, of: Mapping[str, Figure]) -> Part:
    first, second = (worse, claim.better) if claim.lower else (claim.better, worse)
    d = figure.compare(of[first], of[second])
    return Part(worse, d, decision.decide(d, claim.by), decision.seeds_needed(d, claim.by))


def answer(study: Study, metric: str, of: Mapping[str, Figure]) -> str:
    """One sentence for the user's question: the best level, and which others are not clearly worse."""
    if not of:
        return "Nothing was measured."
    best = (min if lower(metric) else max)(of, key=lambda level: of[level].mean)
    lead = f"Best here: {best} ({named(metric)} {of[best]} {unit(metric)})."
    if len(of) == 1:
        return lead
    close = list(alike(best, of))
    if len(of[best].values) < 3:
        return f"{lead} With fewer than three seeds a different seed may change this."
    if not close:
        return f"{lead} Every other level is clearly worse."
    return f"{lead} Not clearly worse: {listed(close)}."


def alike(best: str, of: Mapping[str, Figure]) -> Iterator[str]:
    """The levels that are not clearly worse than the best one, after Holm's correction for the number of levels."""
    ranked = sorted((figure.compare(of[best], of[level]).p_value, level) for level in of if level != best)
    rejected = 0
    for place, (p, _) in enumerate(ranked):
        if p > 0.05 / (len(ranked) - place):
            break
        rejected += 1
    close = {level for _, level in ranked[rejected:]}
    yield from (level for level in of if level in close)
