"""What is read of a cell: an accuracy with its answers to single images, a signal, a cost. One figure per seed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from data.shards import Manifest
from pipelines.evaluation import difference, scores
from pipelines.evaluation.difference import Answers, Difference
from pipelines.evaluation.scores import Score
from pipelines.machine import flops
from pipelines.project import stage
from pipelines.project.history import read_history, trained_seconds
from pipelines.studies.cell import Cell

SIGNAL, MEASURED = "signal:", "measured:"  # metrics of the training history, and of a reading of the study


@dataclass(frozen=True)
class Figure:
    """Of one level: a figure per seed; of an accuracy also the answers (seeds, test images), else None.

    of: what was read of which cells, to see that two levels are the same.
    """

    values: tuple[float, ...]
    answers: Answers | None = None
    of: object = field(default_factory=object)

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def sd(self) -> float | None:
        """Over seeds; None of one seed."""
        return stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        digits = 1 if abs(self.mean) >= 10 else 2 if abs(self.mean) >= 1 else 3
        return f"{self.mean:.{digits}f}" + (f" ± {self.sd:.{digits}f}" if self.sd is not None else "")


def read(cells: Sequence[Cell], who: str, metric: str) -> Figure:
    """The figure of a level. cells: one per seed. Raises KeyError when a cell was not measured so."""
    return replace(measured(cells, who, metric), of=([cell.folder for cell in cells], who, metric))


def measured(cells: Sequence[Cell], who: str, metric: str) -> Figure:
    if metric == "memory" or metric.startswith(SIGNAL):
        return Figure(tuple(signal(cell, metric.removeprefix(SIGNAL)) for cell in cells))
    if metric.startswith(MEASURED):
        reading, _, key = metric.removeprefix(MEASURED).partition(".")
        return Figure(tuple(float(load(cell.artifact(f"{reading}.json"))[key]) for cell in cells))
    if metric == "seconds":
        return Figure(tuple(map(trained, cells)))
    if metric == "gflops":
        return Figure(tuple(map(operations, cells)))
    if metric in ("retrieval", "between_images"):
        return Figure(tuple(float(load(cell.artifact("metrics.json"))[who][metric]) for cell in cells))
    how, _, labels = metric.partition("_")
    found = [[s for s in table(cell, who) if (s.who, s.how, s.labels) == (who, how, labels)] for cell in cells]
    if not all(found):
        raise KeyError(metric)
    answers = np.concatenate([scores.answers(of) for of in found])
    return Figure(tuple(100 * answers.mean(axis=1)), answers)


def compare(ours: Figure, theirs: Figure) -> Difference:
    """By the single answers where both have them, else by the figures of the seeds alone."""
    if ours.answers is not None and theirs.answers is not None:
        return difference.of_answers(ours.answers, theirs.answers)
    return difference.of_figures(ours.values, theirs.values)


def signal(cell: Cell, key: str) -> float:
    """The last value of a signal in the training history; of memory the largest."""
    rows = [row[key] for row in read_history(cell.artifact("history.jsonl")) if key in row]
    if not rows:
        raise KeyError(key)
    return max(rows) if key == "memory" else rows[-1]


def operations(cell: Cell) -> float:
    """GFLOPs per image of a training step, forward and backward. Raises OSError when nothing was prepared."""
    manifest = Manifest.read(cell.folder / stage.PREPARED)
    method = cell.config.build(cell.method, manifest)
    return flops.flops(method, manifest.preprocess.size) / 1e9


def table(cell: Cell, who: str) -> list[Score]:
    """All scores of the cell: of its probes, its fine-tuning, its baselines and its readings."""
    own = cell.folder / "artifacts"
    paths = [*own.glob("methods/*/*.csv"), *own.glob("baselines/*/scores.csv")]
    return [s for path in sorted(paths) for s in scores.read(path) if s.who == who]


def trained(cell: Cell) -> float:
    """The seconds of its pretraining. Raises OSError when it has not finished."""
    manifest = Manifest.read(cell.folder / stage.PREPARED)
    fitted = cell.config.fitted(manifest.splits["train"])
    return trained_seconds(read_history(cell.artifact("history.jsonl")), fitted.method(cell.method).batch_size)


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
