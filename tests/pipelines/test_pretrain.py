"""Training that is killed, stopped, or wrong from the start."""

import json
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from data.shards import Prepared
from pipelines import pretrain
from pipelines.project import stage
from pipelines.project.stage import TRY_AGAIN
from tests.pipelines.small_project import METHODS, Project

# A machine on which MLflow is not installed: its import is a second, and curves are another test's matter.
BARE = "import runpy, sys; sys.modules['mlflow'] = None; runpy.run_module('pipelines.pretrain', run_name='__main__')"
SECONDS = 60.0


def scratch(project: Project, method: str) -> Path:
    """The folder of the unfinished run."""
    return project.root / ".scratch" / "pretrain" / method


def rows(project: Project, method: str) -> list[str]:
    """The lines of the unfinished history."""
    try:
        return (scratch(project, method) / "history.jsonl").read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return []


def steps(project: Project, method: str) -> list[int]:
    """Of the checkpoints of the unfinished run, the oldest first."""
    return sorted(int(path.name[5:]) for path in scratch(project, method).glob("step-*"))


def wait_for(process: "subprocess.Popen[str]", holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.002)
            break
        assert time.monotonic() < end, "nothing happens"


def outcome(project: Project, method: str) -> tuple[dict[str, Any], list[dict[str, float]]]:
    checkpoint = torch.load(project.artifact(method, "checkpoint.pt"), weights_only=True)
    history = [json.loads(line) for line in project.artifact(method, "history.jsonl").read_text().splitlines()]
    for row in history:
        assert row.pop("images_per_second") > 0
        assert 0 <= row.pop("input_wait") <= 100
        assert row.pop("memory", 100) >= 100  # MiB; of what the process has done so far
    return checkpoint, history


def assert_same(ours: Project, theirs: Project, method: str) -> None:
    (a, history), (b, expected) = outcome(ours, method), outcome(theirs, method)
    assert history == expected
    assert a["spec"] == b["spec"]
    assert a["weights"].keys() == b["weights"].keys()
    assert all(torch.equal(a["weights"][k], b["weights"][k]) for k in a["weights"])


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_goes_on_to_the_same_numbers(project: Project, undisturbed: Project, method: str) -> None:
    project.set({"pretrain.checkpoint_minutes": 0.0})
    draw = random.Random(method)
    for _ in range(2):
        killed, until = project.start("-c", BARE, method), len(rows(project, method)) + draw.randrange(1, 20)
        wait_for(killed, lambda until=until: len(rows(project, method)) >= until)  # type: ignore[misc]
        with suppress(subprocess.TimeoutExpired):
            killed.wait(draw.uniform(0, 0.03))  # a moment within the step or its save
        killed.kill()
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
    saved, written = steps(project, method), rows(project, method)
    assert len(saved) in (2, 3)  # a third, when it was killed before it removed the first
    assert not project.artifact(method, "checkpoint.pt").exists()
    project.set({"pretrain.checkpoint_minutes": 5.0})
    resumed = project.run("-c", BARE, method)
    assert resumed.returncode == 0, resumed.stderr
    assert f"pretrain@{method}: Resuming from the checkpoint of step {saved[-1]}.\n" in resumed.stderr
    assert_same(project, undisturbed, method)
    history = project.artifact(method, "history.jsonl").read_text()
    assert history.startswith("".join(written[: saved[-1]]))  # those steps were not done again
    assert not list(scratch(project, method).iterdir())


def test_sigterm_saves_within_ten_seconds_and_asks_to_be_run_again(project: Project, undisturbed: Project) -> None:
    stopped = project.start("-c", BARE, "dino")
    wait_for(stopped, lambda: bool(rows(project, "dino")))
    stopped.terminate()
    _, printed = stopped.communicate(timeout=10)
    assert stopped.returncode == TRY_AGAIN == 75
    (step,) = steps(project, "dino")
    assert printed.splitlines()[-1] == f"pretrain@dino: Stopped at step {step}. Run the same command to resume."
    assert project.run("-c", BARE, "dino").returncode == 0
    assert_same(project, undisturbed, "dino")


def test_a_run_that_is_stopped_while_mlflow_makes_it_is_ended_there(project: Project) -> None:
    stopped = project.run(
        "-c",
        "import os, runpy, signal; from mlflow import MlflowClient as client\n"
        "def make(*given, then=client.create_run, **named):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    run = then(*given, **named)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return run\n"
        "client.create_run = make\n"
        "runpy.run_module('pipelines.pretrain', run_name='__main__')",
        "simclr",
    )
    assert stopped.returncode == TRY_AGAIN, stopped.stderr
    assert not steps(project, "simclr")
    with sqlite3.connect(project.root / "mlflow.db") as store:
        assert store.execute("select status from runs").fetchall() == [("KILLED",)]


def test_a_training_that_nobody_reads_any_more_is_ended_in_mlflow(project: Project) -> None:
    project.set({"simclr.epochs": 10_000})
    training = project.start("-m", "pipelines.pretrain", "simclr")
    for pipe in (training.stdout, training.stderr):
        assert pipe
        pipe.close()
    assert training.wait(SECONDS) == 141
    with sqlite3.connect(project.root / "mlflow.db") as store:
        assert store.execute("select status from runs").fetchall() == [("KILLED",)]


def test_a_damaged_checkpoint_costs_steps_and_one_of_other_params_is_named(
    project: Project, undisturbed: Project
) -> None:
    project.set({"pretrain.checkpoint_minutes": 0.0})
    stopped = project.start("-c", BARE, "mae")
    wait_for(stopped, lambda: len(steps(project, "mae")) == 2)
    stopped.terminate()
    stopped.communicate(timeout=10)
    before, newest = steps(project, "mae")
    state = scratch(project, "mae") / f"step-{newest:08d}" / "state.pt"
    state.write_bytes(state.read_bytes().replace(b"PK\x03\x04", b"PK\x03\x05", 1))
    project.set({"mae.optim.lr": 0.002, "mae.epochs": 9})
    other = project.start("-c", BARE, "mae")
    assert other.stderr
    printed = [other.stderr.readline() for _ in range(3)]
    other.kill()
    other.communicate()
    place = Path(".scratch/pretrain/mae/aside")
    assert printed == [
        f"pretrain@mae: The checkpoint of step {step} is from a run with other params (mae.epochs 10, now 9; "
        f"mae.optim.lr 0.001, now 0.002). It is moved to {place}/000{i}-step-{step:08d}.\n"
        for i, step in ((1, newest), (2, before))
    ] + ["pretrain@mae: No checkpoint is left. Training starts from the beginning.\n"]
    project.set({"mae.optim.lr": 0.001, "mae.epochs": 10, "pretrain.checkpoint_minutes": 5.0})
    done = project.run("-c", BARE, "mae")
    assert f"pretrain@mae: Resuming from the checkpoint of step {before}.\n" in done.stderr
    assert_same(project, undisturbed, "mae")


def test_a_loss_that_is_not_finite_stops_with_step_and_loss(project: Project) -> None:
    project.set({"mae.optim.lr": 1e30, "pretrain.checkpoint_minutes": 0.0})
    done = project.run("-c", BARE, "mae")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert re.match(
        r"pretrain@mae: Training diverged: the loss( on held-out images)? is (nan|inf) at step \d+ of ", last
    )
    assert "Lower mae.optim.lr in params.yaml (now 1e+30)." in last
    assert not project.artifact("mae", "checkpoint.pt").exists()
    good = scratch(project, "mae") / f"step-{steps(project, 'mae')[-1]:08d}" / "state.pt"
    assert all(tensor.isfinite().all() for tensor in torch.load(good, weights_only=True)["method"].values())


def test_an_encoder_that_is_not_finite_is_not_handed_on(project: Project) -> None:
    project.set({"mae.optim.lr": 1e39, "mae.optim.warmup": 0.0, "mae.epochs": 1, "mae.batch_size": 200})
    done = project.run("-c", BARE, "mae")  # one step, whose loss is of the weights before it
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not project.artifact("mae", "checkpoint.pt").exists()


def test_a_batch_larger_than_the_train_split_is_cut_and_said(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.set({"mae.batch_size": 999, "mae.epochs": 1})
    monkeypatch.chdir(project.root)
    pretrain.main("mae")
    images = len(Prepared(stage.PREPARED).rows("train"))
    taken = images // 2
    assert (
        f"Parameter mae.batch_size is 999, but the train split has only {images} images. "
        f"The batch size is reduced to {taken}.\n" in capsys.readouterr().out
    )
    assert [row["step"] for row in outcome(project, "mae")[1]] == [1, 2]


def test_the_learning_rate_and_the_epochs_are_where_the_params_say(undisturbed: Project) -> None:
    _, history = outcome(undisturbed, "mae")
    per_epoch = len(history) // 10
    assert [row["step"] for row in history] == list(range(1, 10 * per_epoch + 1))
    assert [row["epoch"] for row in history] == pytest.approx([row["step"] / per_epoch for row in history])
    warm = 0.05 * len(history)
    assert history[1]["lr"] == pytest.approx(0.001 / warm)
    assert max(row["lr"] for row in history) == pytest.approx(0.001, rel=1e-3)
    assert history[-1]["lr"] < 1e-6


def test_compiled_steps_are_the_eager_ones_to_rounding(project: Project) -> None:
    project.set({"pretrain.compile": True, "mae.epochs": 2})
    done = project.run("-c", BARE, "mae")
    assert done.returncode == 0, done.stderr
    assert "nothing is compiled" in done.stderr or shutil.which("g++")
    _, compiled = outcome(project, "mae")
    project.set({"pretrain.compile": False})
    assert project.run("-c", BARE, "mae").returncode == 0
    _, eager = outcome(project, "mae")
    assert [row["loss"] for row in compiled] == pytest.approx([row["loss"] for row in eager], rel=1e-4)


def test_dino_goes_on_from_a_time_when_its_last_layer_had_no_gradient(project: Project) -> None:
    project.set({"dino.epochs": 2, "dino.freeze_last_layer": 0.6, "pretrain.checkpoint_minutes": 0.0})
    stopped = project.start("-c", BARE, "dino")
    wait_for(stopped, (project.root / ".scratch" / "pretrain" / "dino" / "newest").exists)
    stopped.kill()
    stopped.communicate()
    assert not project.artifact("dino", "checkpoint.pt").exists()
    assert project.run("-c", BARE, "dino").returncode == 0
    killed = outcome(project, "dino")
    assert project.run("-c", BARE, "dino").returncode == 0
    whole = outcome(project, "dino")
    assert killed[1] == whole[1]
    assert all(torch.equal(killed[0]["weights"][k], v) for k, v in whole[0]["weights"].items())
