"""The result of a study as a file: artifacts/studies/<scale>/<name>.json. The report is made of these files alone."""

import base64
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch

from pipelines.machine import cores
from pipelines.project.history import read_history
from pipelines.saving.atomic_files import replace_text
from pipelines.studies import figure, finding
from pipelines.studies.cell import Cells
from pipelines.studies.figure import Figure
from pipelines.studies.finding import Finding
from pipelines.studies.study import Scale, Study

RESULTS = Path("artifacts/studies")
Curves = dict[str, dict[str, list[tuple[float, float]]]]  # signal → level → (% of the training run, value)


@dataclass(frozen=True)
class Comparison:
    """One part of a claim. ours, theirs and the interval are in units of the metric; low and high of the difference."""

    worse: str
    ours: float
    theirs: float
    low: float
    high: float
    decision: str


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict: `HOLDS`, `DOES NOT HOLD`, `UNDERPOWERED` or `not run`."""

    claim: str
    source: str
    metric: str
    better: str
    by: float
    verdict: str
    needed: str
    parts: tuple[Comparison, ...]


@dataclass(frozen=True)
class Result:
    """What a study measured. figures: metric → level → one value per seed; seconds: of all its training runs."""

    name: str
    scale: str
    dataset: str
    seeds: int
    command: str
    commit: str
    machine: str
    seconds: float
    answer: str
    figures: dict[str, dict[str, list[float]]]
    claims: tuple[Judged, ...]
    curves: Curves
    pictures: dict[str, str]  # level → a PNG of it

    @property
    def metrics(self) -> tuple[str, ...]:
        """The first one decides."""
        return tuple(self.figures)

    @property
    def path(self) -> Path:
        return RESULTS / self.scale / f"{self.name}.json"

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(self.path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        found = json.loads(path.read_text(encoding="utf-8"))
        claims = tuple(Judged(**c | {"parts": tuple(Comparison(**p) for p in c["parts"])}) for c in found["claims"])
        return cls(**found | {"claims": claims})


def figures(study: Study, scale: Scale, cells: Cells) -> dict[str, dict[str, Figure]]:
    """Metric → level → its figure. A level whose cells did not finish is left out."""
    seeds = sorted({seed for _, seed in cells})
    found: dict[str, dict[str, Figure]] = {}
    for metric in scale.metrics or study.metrics:
        for name, level in study.shown(scale).items():
            if level.source:
                continue
            own = [cells[name, seed] for seed in seeds if (name, seed) in cells]
            if len(own) < len(seeds):
                continue
            who = level.who or level.method or study.method
            try:
                found.setdefault(metric, {})[name] = figure.read(own, who, level.metric or metric)
            except (OSError, KeyError):
                continue
    return {metric: of for metric, of in found.items() if of}


def judged(found: Finding) -> Judged:
    """A finding in the form that is kept."""
    parts = tuple(comparison(part, found.claim.lower) for part in found.parts)
    c = found.claim
    return Judged(c.claim, c.source, found.metric, c.better, c.by, found.verdict, found.needed, parts)


def comparison(part: finding.Part, lower: bool) -> Comparison:
    d = part.difference
    ours, theirs = (d.theirs, d.ours) if lower else (d.ours, d.theirs)
    return Comparison(part.worse, ours, theirs, d.low, d.high, str(part.decision))


def curves(study: Study, scale: Scale, cells: Cells) -> Curves:
    """Of the first seed."""
    first = min(seed for _, seed in cells)
    found: Curves = {}
    for signal in study.curves:
        for name in [name for name in study.shown(scale) if (name, first) in cells]:
            rows = read_history(cells[name, first].artifact("history.jsonl"))
            last = rows[-1]["step"] if rows else 1
            if line := [(100 * row["step"] / last, row[signal]) for row in rows if signal in row]:
                found.setdefault(signal, {})[name] = line
    return found


def seconds(cells: Cells) -> float:
    """That the pretraining of the cells took together."""
    return sum(figure.trained(cell) for cell in {cell.folder: cell for cell in cells.values()}.values())


def pictures(study: Study, cells: Cells) -> dict[str, str]:
    """Level → the PNG that the study's reading drew of its first seed, in Base64. Equal ones are kept once."""
    first = min(seed for _, seed in cells)
    found: dict[str, str] = {}
    for (level, seed), cell in cells.items():
        if study.reading and seed == first and (path := cell.artifact(f"{study.reading}.png")).exists():
            data = base64.b64encode(path.read_bytes()).decode()
            if data not in found.values():
                found[level] = data
    return found


def machine() -> str:
    """What trains here: a GPU by its name, or a number of CPU cores."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{cores.count()} CPU cores"


def every() -> dict[str, list[Result]]:
    """Scale → its results."""
    found: dict[str, list[Result]] = {}
    for path in sorted(RESULTS.glob("*/*.json")):
        try:
            result = Result.read(path)
        except (ValueError, TypeError, KeyError):
            print(f"The file {path} is damaged or from another version. Run the study again.", file=sys.stderr)
            continue
        found.setdefault(result.scale, []).append(result)
    return found


def summary(result: Result) -> dict[str, Any]:
    """What MLflow shows of the study."""
    return {f"verdict {i}": f"{claim.verdict}: {claim.claim}" for i, claim in enumerate(result.claims, 1)}
