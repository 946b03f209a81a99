"""A raw folder of noise, and how it is prepared."""

import csv
from pathlib import Path
from typing import Any

from data.decoding.decode import Preprocess
from data.prepare import prepare
from data.shards import Manifest
from tests.data.conftest import write_image

OPTIONS: dict[str, Any] = {
    "name": "noise",
    "preprocess": Preprocess(6),
    "val": 0.1,
    "test": 0.2,
    "max_bad_fraction": 0.5,
    "labels": True,
    "seed": 0,
    "workers": 2,
}


def run(root: Path, **options: Any) -> Manifest:
    return prepare(root / "raw", root / "out", **OPTIONS | options)


def fill(raw: Path, n: int, first: int = 0, size: tuple[int, int] = (8, 8)) -> None:
    for number in range(first, first + n):
        write_image(raw / f"{number:03d}.png", number, size)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
