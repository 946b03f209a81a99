"""Atomic checkpoints of an unfinished run, in a scratch folder keyed by params, data and code."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from models.methods import MethodParams
from pipelines import stage

CODE = (
    "models",
    "data/batches.py",
    "data/shards.py",
    "pipelines/hardware.py",
    "pipelines/init.py",
    "pipelines/pretrain.py",
)


def key(
    name: str, params: MethodParams, seed: int, precision: str, data_digest: str, init_digest: str | None = None
) -> str:
    """Digest of all that decides the numbers of a run."""
    digest = hashlib.sha256(torch.__version__.encode())
    digest.update(
        json.dumps([name, asdict(params), seed, precision, data_digest, init_digest], sort_keys=True).encode()
    )
    for place in CODE:
        path = Path(place)
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


class Checkpoints:
    """The scratch folder of one run: `state.pt` and `history.jsonl`."""

    def __init__(self, name: str, key: str):
        self.folder = stage.SCRATCH / "pretrain" / f"{name}-{key[:16]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.history = self.folder / "history.jsonl"

    def save(self, state: dict[str, Any]) -> None:
        """Replace the last checkpoint; a kill at any moment leaves the old or the new one, whole."""
        write_atomically(self.folder / "state.pt", state)

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, with the history cut back to it; None for a fresh start."""
        path = self.folder / "state.pt"
        if not path.exists():
            self.history.unlink(missing_ok=True)
            return None
        state: dict[str, Any] = torch.load(path, weights_only=True)
        rows = self.history.read_text().splitlines(keepends=True) if self.history.exists() else []
        whole = [row for row in rows if row.endswith("\n")]  # the last one may be cut by a full disk or a power cut
        self.history.write_text("".join(row for row in whole if json.loads(row)["step"] <= state["step"]))
        return state

    def append(self, row: dict[str, float]) -> None:
        with self.history.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


def write_atomically(path: Path, content: dict[str, Any]) -> None:
    """torch.save to a file that is either the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
