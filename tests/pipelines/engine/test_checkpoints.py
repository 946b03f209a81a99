"""Checkpoints are whole at any moment and in step with their history."""

import os
import random
import re
import shutil
from pathlib import Path

import pytest
import torch

from pipelines.project.stage import StageError
from pipelines.saving.atomic_files import write_atomically
from pipelines.saving.checkpoints import Checkpoints
from tests.pipelines.engine.checkpoints import IDENTITY, assert_loads, folder, saved, state

pytestmark = pytest.mark.usefixtures("elsewhere")
FILES = ("state.pt", "history.jsonl", "manifest.json")


def test_a_file_that_breaks_off_leaves_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "checkpoint.pt"
    write_atomically(path, {"step": 1, "x": torch.ones(3)})
    with pytest.raises(Exception, match="lambda"):
        write_atomically(path, {"x": torch.zeros(3), "step": lambda: 2})
    loaded = torch.load(path, weights_only=True)
    assert loaded["step"] == 1
    assert torch.equal(loaded["x"], torch.ones(3))
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"]


def test_two_are_kept_and_the_newest_is_loaded() -> None:
    checkpoints = saved(3, 6, 9)
    assert checkpoints.steps() == ["step-00000006", "step-00000009"]
    assert (checkpoints.folder / "newest").read_text() == "step-00000009\n"
    assert_loads(9)


def test_a_first_start_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert Checkpoints("mae", IDENTITY).load() is None
    assert capfd.readouterr().err == ""


def test_saved_twice_at_one_step_is_saved_once() -> None:
    checkpoints = saved(3)
    before = folder(checkpoints, 3).stat()
    checkpoints.save(state(3))
    assert folder(checkpoints, 3).stat() == before


def test_the_history_is_cut_back_to_the_checkpoint() -> None:
    checkpoints = saved(3, 5)
    checkpoints.append({"step": 6, "loss": 0.5})  # lost work, and a line that a full disk has cut
    with checkpoints.history.open("a") as file:
        file.write('{"step": 7, "lo')
    assert_loads(5)


def test_without_a_checkpoint_nothing_remains_of_the_history() -> None:
    Checkpoints("mae", IDENTITY).append({"step": 1, "loss": 0.5})
    checkpoints = Checkpoints("mae", IDENTITY)
    assert checkpoints.load() is None
    assert not checkpoints.history.exists()


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_and_the_one_before_is_used(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoints = saved(3, 6)
    shutil.copytree(checkpoints.folder, "kept")
    path = folder(checkpoints, 6) / name
    draw = random.Random(name)
    for _ in range(20):
        raw = bytearray(path.read_bytes())
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        path.write_bytes(raw)
        capfd.readouterr()
        assert_loads(3)
        first, second = capfd.readouterr().err.splitlines()
        (place,) = (checkpoints.folder / "aside").iterdir()
        assert re.fullmatch(
            rf"pretrain@mae: The checkpoint of step 6 is damaged: the SHA-256 of {name} is wrong\. "
            rf"It is moved to {place}\.",
            first,
        )
        assert second == "pretrain@mae: Resuming from the checkpoint of step 3."
        assert (place / name).read_bytes() == raw
        shutil.rmtree(checkpoints.folder)
        shutil.copytree("kept", checkpoints.folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [None, 0, 7])
def test_a_cut_or_missing_file_is_found_and_the_one_before_is_used(
    name: str, size: int | None, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoints = saved(3, 6)
    path = folder(checkpoints, 6) / name
    if size is None:
        path.unlink()
        fault = f"{name} is missing"
    else:
        written = path.stat().st_size
        os.truncate(path, size)
        fault = f"{name} has {size} bytes instead of {written}"
        fault = "the SHA-256 of manifest.json is wrong" if name == "manifest.json" else fault
    assert_loads(3)
    errors = capfd.readouterr().err.splitlines()
    assert errors[0].startswith(f"pretrain@mae: The checkpoint of step 6 is damaged: {fault}. It is moved to ")
    assert saved(3, 6).steps() == ["step-00000003", "step-00000006"]  # and the run goes on


@pytest.mark.parametrize("named", ["", "step-00000009\n", "\xff\x00", "../mae/step-00000006\n"])
def test_a_pointer_to_nowhere_is_said_and_the_newest_that_is_there_used(
    named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoints = saved(3, 6)
    (checkpoints.folder / "newest").write_bytes(named.encode("latin-1"))
    assert_loads(6)
    assert "pretrain@mae: The newest checkpoint should be " in capfd.readouterr().err
    assert_loads(6)
    assert "should be" not in capfd.readouterr().err


def test_when_none_is_left_training_starts_from_the_beginning_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    checkpoints = saved(3, 6)
    for step in (3, 6):
        (folder(checkpoints, step) / "state.pt").unlink()
    assert Checkpoints("mae", IDENTITY).load() is None
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == "pretrain@mae: No checkpoint is left. Training starts from the beginning."
    assert {path.name for path in checkpoints.folder.iterdir()} == {"aside"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite_is_not_saved(value: float) -> None:
    checkpoints = saved(3, 6)
    broken = state(7) | {"optimizer": {"state": {0: {"exp_avg": torch.tensor([0.0, value])}}}}
    with pytest.raises(
        StageError,
        match=r"^The tensor optimizer\.state\.0\.exp_avg is not finite after step 7, so that step is not saved\. "
        r"Lower the learning rate\. The checkpoint of step 6 is kept\.$",
    ):
        checkpoints.save(broken)
    assert checkpoints.steps() == ["step-00000003", "step-00000006"]
    assert_loads(6)
