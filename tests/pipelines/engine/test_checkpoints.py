"""Checkpoints: whole at any moment, in step with their history, and never another run's."""

import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.engine.atomic_files import write_atomically
from pipelines.engine.checkpoints import Checkpoints, code
from pipelines.project.stage import StageError
from tests.pipelines.small_project import Project

IDENTITY: dict[str, Any] = {
    "params": {"mae": {"optim": {"lr": 0.003, "clip": None}, "area": [0.6, 1.0], "epochs": 9}, "seed": 0},
    "data": "a" * 64,
    "code": {"models/methods/mae.py": "b" * 64, "models/encoders/vit.py": "c" * 64},
    "torch": "2.13.0",
}
FILES = ("state.pt", "history.jsonl", "manifest.json")


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


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
            rf"pretrain@mae: the checkpoint of step 6 is (damaged: {name} has another SHA-256 than .+); "
            rf"set aside in {place}",
            first,
        )
        assert second == "pretrain@mae: going on from the checkpoint of step 3"
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
        fault = f"{name} has {size} bytes, {written} were written"
        fault = "manifest.json has another SHA-256 than it says" if name == "manifest.json" else fault
    assert_loads(3)
    said = capfd.readouterr().err.splitlines()
    assert said[0].startswith(f"pretrain@mae: the checkpoint of step 6 is damaged: {fault}; set aside in ")
    assert saved(3, 6).steps() == ["step-00000003", "step-00000006"]  # and the run goes on


@pytest.mark.parametrize("named", ["", "step-00000009\n", "\xff\x00", "../mae/step-00000006\n"])
def test_a_pointer_to_nowhere_is_said_and_the_newest_that_is_there_used(
    named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoints = saved(3, 6)
    (checkpoints.folder / "newest").write_bytes(named.encode("latin-1"))
    assert_loads(6)
    assert "pretrain@mae: the newest checkpoint should be " in capfd.readouterr().err
    assert_loads(6)
    assert "should be" not in capfd.readouterr().err


def test_when_none_is_left_training_starts_from_the_beginning_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    checkpoints = saved(3, 6)
    for step in (3, 6):
        (folder(checkpoints, step) / "state.pt").unlink()
    assert Checkpoints("mae", IDENTITY).load() is None
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == "pretrain@mae: no checkpoint is left; training starts from the beginning"
    assert {path.name for path in checkpoints.folder.iterdir()} == {"aside"}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"params": {"mae": {"optim": {"lr": 0.001, "clip": None}, "area": [0.6, 1.0], "epochs": 9}, "seed": 0}},
         "params (mae.optim.lr 0.003, now 0.001)"),
        ({"params": {"mae": {"optim": {"lr": 0.003, "clip": 3.0}, "area": [0.5, 1.0], "epochs": 8}, "seed": 1}},
         "params (mae.optim.clip None, now 3.0; mae.area [0.6, 1.0], now [0.5, 1.0]; mae.epochs 9, now 8; and 1 more)"),
        ({"data": "d" * 64}, "data (aaaaaaaaaaaa, now dddddddddddd)"),
        ({"code": {"models/methods/mae.py": "e" * 64, "models/encoders/vit.py": "c" * 64}},
         "code (models/methods/mae.py bbbbbbbbbbbb, now eeeeeeeeeeee)"),
        ({"code": {"models/methods/mae.py": "b" * 64}}, "code (models/encoders/vit.py cccccccccccc, now absent)"),
        ({"torch": "2.14.0"}, "torch (2.13.0, now 2.14.0)"),
        ({"init": "f" * 64}, "init (absent, now ffffffffffff)"),
        ({"data": "d" * 64, "torch": "2.14.0"},
         "data (aaaaaaaaaaaa, now dddddddddddd) and other torch (2.13.0, now 2.14.0)"),
    ],
)  # fmt: skip
def test_one_of_another_run_is_set_aside_and_the_sentence_names_what_differs(
    changed: dict[str, Any], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    saved(3, 6)
    other = Checkpoints("mae", IDENTITY | changed)
    assert other.load() is None
    place = other.folder / "aside"
    assert capfd.readouterr().err.splitlines() == [
        f"pretrain@mae: the checkpoint of step 6 is of other {says}; set aside in {place / '0001-step-00000006'}",
        f"pretrain@mae: the checkpoint of step 3 is of other {says}; set aside in {place / '0002-step-00000003'}",
        "pretrain@mae: no checkpoint is left; training starts from the beginning",
    ]
    assert not other.history.exists()
    assert other.run != Checkpoints("mae", IDENTITY).run


def test_once_made_nothing_of_another_run_is_left_for_the_tracker_to_find() -> None:
    saved(3, 6)
    other = Checkpoints("mae", IDENTITY | {"torch": "2.14.0"})  # not loaded yet
    assert {path.name for path in other.folder.iterdir()} == {"aside"}


def test_going_back_to_earlier_params_goes_on_where_they_were() -> None:
    other = IDENTITY | {"torch": "2.14.0"}
    ours, _ = saved(3, 6), saved(2, 4, 7, identity=other)
    assert_loads(6)
    assert ours.steps() == ["step-00000003", "step-00000006"]
    assert [path.name.partition("-")[2] for path in ours.aside()] == ["step-00000007", "step-00000004"]
    Checkpoints("mae", other).clear()  # the other run ends meanwhile
    assert_loads(6)


def test_no_more_than_two_stay_aside() -> None:
    for version in range(5):
        saved(2, 4, identity=IDENTITY | {"torch": str(version)})
    aside = Checkpoints("mae", IDENTITY).aside()
    assert [path.name for path in aside] == ["0009-step-00000004", "0010-step-00000002"]


def test_nothing_but_what_is_aside_remains_of_a_run_that_has_ended() -> None:
    saved(3, identity=IDENTITY | {"torch": "2.14.0"})
    checkpoints = saved(3, 6)
    checkpoints.run.write_text("id")
    checkpoints.clear()
    assert [path.name for path in checkpoints.folder.iterdir()] == ["aside"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite_is_not_saved(value: float) -> None:
    checkpoints = saved(3, 6)
    broken = state(7) | {"optimizer": {"state": {0: {"exp_avg": torch.tensor([0.0, value])}}}}
    with pytest.raises(
        StageError,
        match=r"^optimizer\.state\.0\.exp_avg is not finite after step 7, which is not saved; "
        r"lower the learning rate; the checkpoint of step 6 is kept$",
    ):
        checkpoints.save(broken)
    assert checkpoints.steps() == ["step-00000003", "step-00000006"]
    assert_loads(6)


def test_the_code_is_what_dvc_trains_a_method_anew_for(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    before = code("simclr")
    changing = (
        "models/views/augmentation.py",
        "models/methods/simclr.py",
        "data/batches.py",
        "data/shards.py",
        "pipelines/engine/loop.py",
    )
    for file in (*changing, "models/methods/mae.py", "models/evaluation/probe.py"):
        with Path(file).open("a") as f:
            f.write("# another law\n")
    after = code("simclr")
    assert before.keys() == after.keys()
    assert {file for file in before if before[file] != after[file]} == set(changing)
