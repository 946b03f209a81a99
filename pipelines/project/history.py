"""Read history.jsonl, the rows of a training run."""

import json
from collections.abc import Iterable
from pathlib import Path

from pipelines.project.stage import StageError

Row = dict[str, float]


def read_history(path: Path) -> list[Row]:
    """The rows of a history.jsonl, without a last one that was cut off or is just being written."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    try:
        return [json.loads(line) for line in lines if line.endswith("\n")]
    except ValueError:
        raise StageError(f"The file {path} is damaged: not every line is a JSON object. Copy it again.") from None


def trained_seconds(rows: Iterable[Row], batch_size: int) -> float:
    """The seconds that the steps of a training run took, from the speed in every row of its history."""
    total, steps = 0.0, 0.0
    for row in rows:
        total += (row["step"] - steps) * batch_size / row["images_per_second"]
        steps = row["step"]
    return total
