"""Accuracies of single runs, one line each, and the predictions behind them: what every figure and verdict is made of.

Beside each table of scores (`scores.csv`) stand the predictions (`scores.npz`), row by row in the same order.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

How = Literal["linear", "knn", "finetune"]
Split = Literal["test", "val"]
JUDGED: tuple[Split, ...] = get_args(Split)
ALL = "all"
INITIAL = "initial"  # initial-mae: the weights that MAE's pretraining started from, as they are
Classes = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of the images of one split that have a label, in its order: what was predicted, and what is true; (images,)."""

    predicted: Classes
    truth: Classes

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.equal(self.predicted, self.truth)

    @property
    def accuracy(self) -> float:
        """Top-1 in percent."""
        return 100 * int(self.right.sum()) / len(self.truth)


@dataclass(frozen=True)
class Score:
    """One reading of one encoder on one label sample.

    who: a run's name: a method, its baseline (random-simclr, initial-simclr, pixels, supervised-simclr: the backbone of
    simclr), or simclr-pseudolabel. how: by a probe of frozen features, or trained end to end (`finetune`, also from
    scratch). labels: so many per class, or `all`; seed: of the pretraining, or of the training from scratch; sample: of
    the labels, the same for everyone. accuracy and val: top-1 in percent, on test and on val; said: the predictions.
    """

    who: str
    how: How
    labels: str
    seed: int
    sample: int
    accuracy: float
    val: float
    said: Mapping[Split, Predictions] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, who: str, how: How, labels: str, seed: int, sample: int, said: Mapping[Split, Predictions]) -> Self:
        """With the accuracies of these predictions."""
        return cls(who, how, labels, seed, sample, said["test"].accuracy, said["val"].accuracy, said)


COLUMNS = [f.name for f in fields(Score) if f.name != "said"]


def write(path: Path, scores: Iterable[Score]) -> None:
    """The table, and the predictions beside it."""
    rows = list(scores)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for s in rows:
            table.writerow([*(getattr(s, name) for name in COLUMNS[:-2]), f"{s.accuracy:.4f}", f"{s.val:.4f}"])
    arrays: dict[str, Classes] = {}
    for split in JUDGED if rows else ():
        arrays[split] = smallest(np.stack([s.said[split].predicted for s in rows]))
        arrays[f"{split}_labels"] = smallest(rows[0].said[split].truth)
    np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **arrays)


def smallest(classes: Classes) -> Classes:
    """The same in the smallest type of integers that holds them."""
    return classes.astype(np.min_scalar_type(classes.max(initial=0)))


def read(path: Path) -> list[Score]:
    """The table, each row with its predictions."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(row["how"] in get_args(How) for row in rows)
    numbers: dict[str, type] = {"seed": int, "sample": int, "accuracy": float, "val": float}
    with np.load(path.with_suffix(".npz")) as file:
        arrays = dict(file)
    return [
        Score(
            **{k: numbers.get(k, str)(v) for k, v in row.items()},
            said={split: Predictions(arrays[split][i], arrays[f"{split}_labels"]) for split in JUDGED},
        )
        for i, row in enumerate(rows)
    ]


def answers(scores: Sequence[Score], on: Split = "test") -> NDArray[np.float64]:
    """(seeds, images): for each seed, ascending, the share of its label samples with which an image was answered
    rightly. All scores are of one approach at one label count.
    """
    right: dict[int, list[NDArray[np.bool_]]] = defaultdict(list)
    for s in scores:
        right[s.seed].append(s.said[on].right)
    return np.array([np.mean(right[seed], axis=0) for seed in sorted(right)])


def figures(scores: Iterable[Score]) -> dict[str, float]:
    """Of one `who`: `linear_5`, `linear_5_sd`, `val_linear_5`, …: mean, and sd where there are several runs."""
    cells: dict[str, list[Score]] = defaultdict(list)
    for s in scores:
        cells[f"{s.how}_{s.labels}"].append(s)
    found: dict[str, float] = {}
    for name, cell in cells.items():
        for prefix, values in (("", [s.accuracy for s in cell]), ("val_", [s.val for s in cell])):
            found[f"{prefix}{name}"] = mean(values)
            if len(values) > 1:
                found[f"{prefix}{name}_sd"] = stdev(values)
    return found
