"""A checkpoint that is written while the training goes on is of the moment at which it was asked for."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipelines.machine import distributed
from pipelines.project.stage import StageError
from pipelines.saving.checkpoints import Checkpoints
from pipelines.saving.saver import Saver
from tests.pipelines.engine.checkpoints import IDENTITY, assert_loads, state

pytestmark = pytest.mark.usefixtures("elsewhere")


class Slow(Checkpoints):
    """A disk that takes its time: as long as nobody says that it is ready."""

    ready = threading.Event()

    def save(self, state: Mapping[str, Any], rows: bytes | None = None) -> None:
        assert self.ready.wait(60)
        super().save(state, rows)


@pytest.fixture
def slow() -> Slow:
    saves = Slow("mae", IDENTITY)
    saves.ready.clear()
    for step in (1, 2, 3):
        saves.append({"step": step, "loss": 0.5})
    return saves


def test_the_loop_goes_on_and_its_rows_are_not_in_the_checkpoint(slow: Slow) -> None:
    with Saver(slow) as saver:
        saver.save(state(3))
        slow.append({"step": 4, "loss": 0.5})
        saver.check()
        assert not slow.steps()
        slow.ready.set()
        saver.wait()
        assert slow.steps() == ["step-00000003"]
    assert_loads(3)


def test_what_is_begun_is_finished_before_the_process_ends(slow: Slow) -> None:
    def stopped() -> None:
        with Saver(slow) as saver:
            saver.save(state(3))
            slow.ready.set()
            raise SystemExit(75)

    with pytest.raises(SystemExit):
        stopped()
    assert_loads(3)


def test_an_error_of_the_thread_is_the_loop_s(slow: Slow) -> None:
    slow.ready.set()
    with Saver(slow) as saver:
        saver.save({"step": 3, "method": {"w": torch.tensor([float("nan")])}})
        with pytest.raises(
            StageError, match=r"^The tensor method\.w is not finite after step 3, so that step is not saved"
        ):
            saver.wait()


def test_a_row_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saves = Checkpoints("mae", IDENTITY)
    monkeypatch.setattr("os.fsync", lambda descriptor: pytest.fail("the step waits for the disk"))
    saves.append({"step": 1, "loss": 0.5})
    assert json.loads(saves.history.read_text()) == {"step": 1, "loss": 0.5}


def test_a_state_stays_as_it_was_while_the_training_goes_on() -> None:
    network = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(2)).sum().backward()
    optimizer.step()
    kept = distributed.state(network, optimizer)
    before = json.dumps(kept, default=lambda x: x.tolist())
    optimizer.step()
    assert json.dumps(kept, default=lambda x: x.tolist()) == before
