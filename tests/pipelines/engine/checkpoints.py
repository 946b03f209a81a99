"""Checkpoints of a small training run: how they come about, and what must be loaded."""

import json
from pathlib import Path
from typing import Any

import torch

from pipelines.saving.checkpoints import Checkpoints

IDENTITY: dict[str, Any] = {
    "params": {"mae": {"optim": {"lr": 0.003, "clip": None}, "area": [0.6, 1.0], "epochs": 9}, "seed": 0},
    "data": "a" * 64,
    "code": {"models/methods/mae.py": "b" * 64, "models/encoders/vit.py": "c" * 64},
    "torch": "2.13.0",
}


def state(step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    weights = {"w": torch.rand(3000, generator=generator)}
    return {"step": step, "method": weights, "generator": generator.get_state()}


def rows(last: int) -> str:
    return "".join(json.dumps({"step": step, "loss": 0.5}) + "\n" for step in range(1, last + 1))


def saved(*steps: int, identity: dict[str, Any] = IDENTITY, last: bool = True) -> Checkpoints:
    """In the working directory, as a run leaves it: a row a step, a checkpoint at each of these (but the last)."""
    checkpoints = Checkpoints("mae", identity)
    done = (checkpoints.load() or {"step": 0})["step"]
    for step in range(done + 1, steps[-1] + 1):
        checkpoints.append({"step": step, "loss": 0.5})
        if step in (steps if last else steps[:-1]):
            checkpoints.save(state(step))
    return checkpoints


def assert_loads(step: int, identity: dict[str, Any] = IDENTITY) -> None:
    """Anew, as another process does."""
    checkpoints = Checkpoints("mae", identity)
    loaded, expected = checkpoints.load(), state(step)
    assert loaded is not None
    assert loaded["step"] == step
    assert loaded.keys() == expected.keys()
    assert torch.equal(loaded["method"]["w"], expected["method"]["w"])
    assert torch.equal(loaded["generator"], expected["generator"])
    assert checkpoints.history.read_text() == rows(step)
    assert not list(checkpoints.folder.glob(".*"))


def folder(checkpoints: Checkpoints, step: int) -> Path:
    return checkpoints.folder / f"step-{step:08d}"
