"""Checkpoints: whole at any moment, in step with their history, and never another run's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.resnet import ResNetParams
from pipelines import config
from pipelines.checkpoints import Checkpoints, key, write_atomically
from tests.pipelines.project import ROOT, Project


def test_a_save_that_breaks_off_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    write_atomically(path, {"step": 1, "x": torch.ones(3)})
    with pytest.raises(Exception, match="lambda"):
        write_atomically(path, {"x": torch.zeros(3), "step": lambda: 2})
    state = torch.load(path, weights_only=True)
    assert state["step"] == 1
    assert torch.equal(state["x"], torch.ones(3))


def rows(*steps: int) -> str:
    return "".join(json.dumps({"step": step, "loss": 0.5}) + "\n" for step in steps)


def test_the_history_is_cut_back_to_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints("simclr", "0123456789abcdef0123")
    for step in (10, 20, 30):
        checkpoints.append({"step": step, "loss": 0.5})
    checkpoints.save({"step": 25})
    assert checkpoints.load() == {"step": 25}
    assert checkpoints.history.read_text() == rows(10, 20)


def test_without_a_checkpoint_nothing_remains_of_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints("simclr", "0123456789abcdef0123")
    checkpoints.append({"step": 10, "loss": 0.5})
    assert checkpoints.load() is None
    assert not checkpoints.history.exists()


def test_a_last_line_cut_short_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints("simclr", "0123456789abcdef0123")
    checkpoints.history.write_text(rows(10, 20) + '{"step": 30, "lo')
    checkpoints.save({"step": 25})
    assert checkpoints.load() == {"step": 25}
    assert checkpoints.history.read_text() == rows(10, 20)


def test_the_key_changes_with_all_that_decides_the_numbers(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    params = config.load(ROOT / "params.yaml").simclr
    assert isinstance(params.encoder, ResNetParams)

    def ours(**changed: object) -> str:
        given = {"name": "simclr", "params": params, "seed": 0, "precision": "fp32", "data_digest": "a"}
        return key(**given | changed)  # type: ignore[arg-type]

    keys = [
        ours(),
        ours(name="dino"),
        ours(params=replace(params, temperature=0.2)),
        ours(params=replace(params, encoder=replace(params.encoder, width=4))),
        ours(params=replace(params, optim=replace(params.optim, lr=0.1))),
        ours(seed=1),
        ours(precision="bf16"),
        ours(data_digest="b"),
    ]
    assert ours() == keys[0]
    for code in ("models/views.py", "data/batches.py", "pipelines/pretrain.py"):
        with Path(code).open("a") as file:
            file.write("# another law\n")
        keys.append(ours())
    assert len(set(keys)) == len(keys)
