"""history.jsonl: the rows of a training, one a look, as they were written."""

import json
from collections.abc import Iterable
from pathlib import Path

from pipelines.project.stage import StageError

Row = dict[str, float]


def read_history(path: Path) -> list[Row]:
    """The rows of a history.jsonl; a last one that was cut, or is just being written, is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    try:
        return [json.loads(line) for line in lines if line.endswith("\n")]
    except ValueError:
        raise StageError(f"{path} is damaged: not every line is a row; copy it again") from None


def trained_seconds(rows: Iterable[Row], batch_size: int) -> float:
    """That the steps of a training took, from the speed of every row of its history."""
    total, steps = 0.0, 0.0
    for row in rows:
        total += (row["step"] - steps) * batch_size / row["images_per_second"]
        steps = row["step"]
    return total
