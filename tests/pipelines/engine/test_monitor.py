"""Looks at a training: what they write, and that they leave it as it was."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from data.batches import Batches
from data.shards import Prepared
from models import start
from pipelines.engine.loop import Stop, Training, train
from pipelines.engine.monitor import Watch
from pipelines.machine import hardware
from pipelines.project import config
from pipelines.project.history import Row
from tests.pipelines.small_project import METHODS, Project

COMMON = {"effective_rank", "feature_std", "feature_cosine", "alignment", "uniformity", "consistency"}
COMMON |= {"held_out_loss", "relative_loss", "weight_norm", "memory"}


class Blindfold(Watch):
    """Never looks."""

    def due(self, step: int) -> bool:
        return False


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(project.root)
    return project


def trained(name: str, kind: type[Watch], epochs: float | None = None) -> tuple[list[Row], dict[str, Tensor]]:
    """Rows and weights of a training in this process."""
    c = config.load()
    prepared, params, cpu = Prepared(Path("data/prepared")), c.method(name), torch.device("cpu")
    m = prepared.manifest
    batches = Batches(prepared, prepared.rows("train"), params.batch_size, c.seed)
    method = start.method(name, params, m.preprocess.size, m.mean, m.std, c.seed)
    steps = params.epochs * len(batches)
    setting = hardware.choose(c.pretrain, method, params, m.preprocess.size, steps, cpu)
    watch = kind(prepared, method, setting, cpu, epochs, len(batches), steps)
    rows: list[Row] = []
    train(name, Training(method, params, c.pretrain, setting, cpu), batches, watch, None, rows.append, Stop())
    return rows, method.state_dict()


@pytest.mark.parametrize("name", METHODS)
def test_a_training_that_is_watched_is_the_same_to_the_bit(here: Project, name: str) -> None:
    here.set({f"{name}.epochs": 2})
    random = torch.get_rng_state()
    watched, ours = trained(name, Watch, epochs=0.01)
    unwatched, theirs = trained(name, Blindfold)
    assert torch.equal(torch.get_rng_state(), random)
    assert [row["loss"] for row in watched] == [row["loss"] for row in unwatched]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert all(row.keys() >= COMMON for row in watched)
    assert not any(row.keys() & COMMON for row in unwatched)
    assert len({row["effective_rank"] for row in watched}) > 1


@pytest.mark.parametrize(("epochs", "looks"), [(None, 25), (1.0, 11), (0.5, 21), (4, 4), (99, 2)])
def test_looks_are_as_often_as_asked_and_at_both_ends(here: Project, epochs: float | None, looks: int) -> None:
    here.set({"mae.epochs": 10, "pretrain.log_every": 1000})
    rows, _ = trained("mae", Watch, epochs)
    watched = [row["step"] for row in rows]  # a look is always a row, and here there is no other
    assert (watched[0], watched[-1]) == (1, max(watched))
    assert len(watched) == pytest.approx(looks, abs=0 if epochs else 8)


def test_the_teacher_of_the_previous_epoch_is_the_student_at_its_end(here: Project) -> None:
    here.set({"dino.epochs": 2, "dino.teacher": "epoch"})
    _, weights = trained("dino", Blindfold)
    learned = [name for name in weights if name.startswith("student.") and name.endswith("weight")]
    assert learned
    assert all(torch.equal(weights[name], weights[f"teacher{name.removeprefix('student')}"]) for name in learned)
