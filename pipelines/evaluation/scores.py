"""Accuracies of single runs, one line each: what every mean ± sd, curve and verdict is made of."""

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean, stdev
from typing import Literal, get_args

How = Literal["linear", "knn", "finetune"]
ALL = "all"


@dataclass(frozen=True)
class Score:
    """One reading of one encoder on one label sample.

    who: a run's name: a method, its baseline (random-simclr, pixels, supervised-simclr: the backbone of simclr), or
    simclr-pseudolabel. how: by a probe of frozen features, or trained end to end (`finetune`, also from scratch).
    labels: so many per class, or `all`; seed: of the pretraining, or of the training from scratch; sample: of the
    labels, the same for everyone. accuracy and val: top-1 in percent, on test and on val.
    """

    who: str
    how: How
    labels: str
    seed: int
    sample: int
    accuracy: float
    val: float


def write(path: Path, scores: Iterable[Score]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [f.name for f in fields(Score)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(s) | {"accuracy": f"{s.accuracy:.4f}", "val": f"{s.val:.4f}"} for s in scores)


def read(path: Path) -> list[Score]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(row["how"] in get_args(How) for row in rows)
    numbers: dict[str, type] = {"seed": int, "sample": int, "accuracy": float, "val": float}
    return [Score(**{k: numbers.get(k, str)(v) for k, v in row.items()}) for row in rows]


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
