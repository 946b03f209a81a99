"""What the studies found as rows: claims with their verdicts, and the figures of the levels. For page and Markdown."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.evaluation import words
from pipelines.evaluation.decision import Decision
from pipelines.evaluation.difference import SEEDS
from pipelines.evaluation.words import capital, listed
from pipelines.studies import charts, study
from pipelines.studies.metric import named, unit
from pipelines.studies.result import Comparison, Judged, Result
from pipelines.studies.study import Study

NOT_RUN = "not run"
WORDS = {  # verdict → what is said of one claim, of several, and how it is coloured
    str(Decision.HOLDS): ("holds", "hold", "good"),
    str(Decision.FAILS): ("does not hold", "do not hold", "bad"),
    str(Decision.OPEN): ("is underpowered", "are underpowered", "quiet"),
    NOT_RUN: ("was not run", "were not run", "quiet"),
}
ORDER = (str(Decision.FAILS), str(Decision.OPEN), str(Decision.HOLDS))  # the part that decides a claim comes first
Results = Mapping[str, Mapping[str, Result]]  # scale → study → its result


@dataclass(frozen=True)
class Part:
    """The better level against one that should be worse, as text.

    span: places on a line from 0 to 100, in the claim's direction: low, mean and high of the difference, the smallest
    that matters, and 0. Empty of fewer seeds than an interval needs.
    """

    better: str
    worse: str
    ours: str
    theirs: str
    difference: str
    interval: str
    paper: str
    decision: str
    favour: float  # the difference in the claim's direction
    span: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """A claim. parts: the one that decides first; empty where it was not run."""

    study: str
    claim: str
    source: str
    verdict: str
    metric: str
    smallest: str
    seeds: int
    needed: str
    parts: tuple[Part, ...]

    @property
    def mark(self) -> str:
        """The name of its colour."""
        return WORDS[self.verdict][2]


def scales(results: Results) -> list[str]:
    """The largest first: on a GPU, the user's own images, small, quick."""
    own = sorted(results.keys() - set(study.SCALES))
    return [scale for scale in ("gpu", *own, "small", "quick") if scale in results]


def rows(studies: Mapping[str, Study], results: Mapping[str, Result]) -> list[Row]:
    """Every claim of every study at one scale."""
    return [row for name, of in studies.items() for row in claims(name, of, results.get(name))]


def claims(name: str, of: Study, result: Result | None) -> Iterator[Row]:
    """The claims of a study."""
    if result is None:
        for c in of.claims:
            yield Row(name, c.claim, c.source, NOT_RUN, c.metric or of.metrics[0], "", 0, "", ())
        return
    for judged in result.claims:
        lower = any(c.claim == judged.claim and c.lower for c in of.claims)
        parts = sorted((part(of, judged, p, lower, result.seeds) for p in judged.parts), key=decisive)
        smallest = f"{'−' * lower}{judged.by:g} {difference_unit(judged.metric)}".rstrip()
        smallest = "1 point" if smallest == "1 points" else smallest
        yield Row(
            *(name, judged.claim, judged.source, judged.verdict, judged.metric),
            *(smallest, result.seeds if parts else 0, judged.needed, tuple(parts)),
        )


def decisive(part: Part) -> tuple[int, float]:
    """The verdict that decides comes first; of equal verdicts, the smallest difference in favour of the claim."""
    return ORDER.index(part.decision), part.favour


def part(of: Study, judged: Judged, p: Comparison, lower: bool, seeds: int) -> Part:
    """The difference is the better level's figure minus the other's, whichever sign is better."""
    sign = -1 if lower else 1
    low, high = sorted((sign * p.low, sign * p.high))
    reported = charts.reported(of, judged.metric)
    paper = [reported[level][0] for level in (judged.better, p.worse) if level in reported]
    interval = f"95 % interval {signed(low, judged.by)} to {signed(high, judged.by)}"
    if seeds < SEEDS:
        interval = f"{words.seeds(seeds)}: a different seed may change this"
    return Part(
        judged.better,
        p.worse,
        charts.written([p.ours]),
        charts.written([p.theirs]),
        f"{signed(p.ours - p.theirs, judged.by)} {difference_unit(judged.metric)}".rstrip(),
        interval,
        signed(paper[0] - paper[1], judged.by) if len(paper) == 2 else "",
        p.decision,
        (p.low + p.high) / 2,
        span(p.low, sign * (p.ours - p.theirs), p.high, judged.by) if seeds >= SEEDS else (),
    )


def difference_unit(metric: str) -> str:
    """Of a difference: points where the figures are percentages; nothing where the unit is a phrase."""
    return {"%": "points", "s": "s", "MiB": "MiB"}.get(unit(metric), "")


def signed(value: float, smallest: float) -> str:
    """`+6.1` or `−2.7`, with the digits that the smallest difference that matters asks for."""
    digits = 0 if abs(value) >= 1000 else 1 if smallest >= 0.5 or smallest <= 0 else 2 if smallest >= 0.05 else 3
    return f"{value:+,.{digits}f}".replace("-", "−")


def span(*values: float) -> tuple[float, ...]:
    """Places of these values and of 0 on a line that shows them all, from 0 to 100."""
    every = (*values, 0.0)
    low, wide = min(every), (max(every) - min(every)) or 1.0
    return tuple(round(4 + 92 * (value - low) / wide, 1) for value in every)


def counted(verdicts: Sequence[str]) -> str:
    """`12 of 31 claims hold, 4 do not hold, 9 are underpowered and 6 were not run.`"""
    counts = Counter(verdicts)
    if not counts[Decision.HOLDS] + counts[Decision.FAILS]:
        return (
            "Nothing is decided yet: it takes three seeds and a larger scale."
            if counts[Decision.OPEN]
            else "Nothing was run yet."
        )
    hold = counts.pop(str(Decision.HOLDS), 0)
    plural = "claims" if len(verdicts) != 1 else "claim"
    parts = [f"{hold or 'None'} of {len(verdicts)} {plural} {WORDS[Decision.HOLDS][hold > 1]}"]
    parts += [f"{n} {WORDS[verdict][n > 1]}" for verdict in WORDS if (n := counts[verdict])]
    return f"{listed(parts)}."


def brief(verdicts: Sequence[str]) -> str:
    """`1 holds, 2 are underpowered`."""
    return ", ".join(f"{n} {WORDS[verdict][n > 1]}" for verdict in WORDS if (n := list(verdicts).count(verdict)))


def best_known(studies: Mapping[str, Study], results: Results) -> list[str]:
    """The verdict of each claim at the largest scale at which it was run."""
    tables = [rows(studies, results[scale]) for scale in scales(results)] or [rows(studies, {})]
    return [next((v for v in found if v != NOT_RUN), NOT_RUN) for found in verdicts(studies, tables)]


def verdicts(studies: Mapping[str, Study], tables: Sequence[Sequence[Row]]) -> Iterator[list[str]]:
    """For each claim of the studies its verdict in every table; a claim that has changed since has none."""
    known = [{(row.study, row.claim): row.verdict for row in table} for table in tables]
    for name, of in studies.items():
        for claim in of.claims:
            yield [table.get((name, claim.claim), NOT_RUN) for table in known]


@dataclass(frozen=True)
class Levels:
    """A table of figures. head: the levels' factor, then each metric, followed by the paper's where it has numbers."""

    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    paper: frozenset[int]  # columns that are the paper's


def levels(of: Study, result: Result | None) -> Levels:
    """Every level with every figure: mean ± sd, or `not run`."""
    metrics = result.metrics if result else tuple(of.paper.numbers if of.paper else ())
    head, columns, paper = [capital(of.factor)], [list(of.levels)], set()
    for metric in metrics:
        if result:
            known = result.figures[metric]
            head.append(charts.heading(metric))
            columns.append([charts.written(known[level]) if known.get(level) else NOT_RUN for level in of.levels])
        if given := charts.given(charts.reported(of, metric)):
            own = charts.paper_metric(of, metric)
            head.append("paper" if own == metric else f"paper: {named(own or metric)}")
            paper.add(len(columns))
            columns.append([given.get(level, "–") for level in of.levels])
    return Levels(tuple(head), tuple(zip(*columns, strict=True)), frozenset(paper))


def duration(seconds: float) -> str:
    """`42 s`, `12 min` or `3.4 hours`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
