"""Training that is killed, stopped, or wrong from the start."""

import json
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines import pretrain
from pipelines.pretrain import TRY_AGAIN
from pipelines.stage import StageError
from tests.pipelines.project import METHODS, Project

# A machine on which MLflow is not installed: its import is a second, and curves are another test's matter.
BARE = "import runpy, sys; sys.modules['mlflow'] = None; runpy.run_module('pipelines.pretrain', run_name='__main__')"
SECONDS = 60.0


def scratch(project: Project, method: str, name: str) -> Path | None:
    """A file of the unfinished run."""
    return next((project.root / ".scratch" / "pretrain").glob(f"{method}-*/{name}"), None)


def wait_for(process: "subprocess.Popen[str]", project: Project, method: str, name: str) -> Path:
    """The file, as soon as the run has written it."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if path := scratch(project, method, name):
            return path
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.005)
            break
    raise AssertionError(f"no {name}: {process.communicate()}")


def outcome(project: Project, method: str) -> tuple[dict[str, Any], list[dict[str, float]]]:
    checkpoint = torch.load(project.artifact(method, "checkpoint.pt"), weights_only=True)
    rows = [json.loads(line) for line in project.artifact(method, "history.jsonl").read_text().splitlines()]
    for row in rows:
        assert row.pop("images_per_second") > 0
    return checkpoint, rows


def assert_same(ours: Project, theirs: Project, method: str) -> None:
    (a, history), (b, expected) = outcome(ours, method), outcome(theirs, method)
    assert history == expected
    assert a["spec"] == b["spec"]
    assert a["weights"].keys() == b["weights"].keys()
    assert all(torch.equal(a["weights"][k], b["weights"][k]) for k in a["weights"])


@pytest.fixture(scope="session")
def undisturbed(prepared_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The three methods trained without interruption."""
    root = tmp_path_factory.mktemp("undisturbed") / "project"
    shutil.copytree(prepared_project.root, root, ignore=shutil.ignore_patterns(".scratch"))
    project = Project(root)
    program = "import sys; sys.modules['mlflow'] = None; from pipelines.pretrain import main; "
    done = project.run("-c", program + "; ".join(f"main({m!r})" for m in METHODS))
    assert done.returncode == 0, done.stderr
    return project


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_goes_on_to_the_same_numbers(project: Project, undisturbed: Project, method: str) -> None:
    project.set({"pretrain.checkpoint_minutes": 0.0})
    killed = project.start("-c", BARE, method)
    state = wait_for(killed, project, method, "state.pt")
    killed.kill()
    killed.communicate()
    step = torch.load(state, weights_only=True)["step"]
    written = (state.parent / "history.jsonl").read_text().splitlines(keepends=True)
    assert not project.artifact(method, "checkpoint.pt").exists()
    resumed = project.run("-c", BARE, method)
    assert resumed.returncode == 0, resumed.stderr
    assert_same(project, undisturbed, method)
    history = project.artifact(method, "history.jsonl").read_text()
    assert history.startswith("".join(written[:step]))  # those steps were not done again
    assert not state.parent.exists()


def test_sigterm_saves_and_asks_to_be_run_again(project: Project, undisturbed: Project) -> None:
    stopped = project.start("-c", BARE, "dino")
    history = wait_for(stopped, project, "dino", "history.jsonl")
    stopped.terminate()
    _, said = stopped.communicate(timeout=SECONDS)
    assert stopped.returncode == TRY_AGAIN == 75
    step = torch.load(history.parent / "state.pt", weights_only=True)["step"]
    assert said.splitlines()[-1] == f"pretrain@dino: stopped at step {step}; run the same command to go on"
    assert project.run("-c", BARE, "dino").returncode == 0
    assert_same(project, undisturbed, "dino")


def test_a_loss_that_is_not_finite_stops_with_step_and_loss(project: Project) -> None:
    project.set({"mae.optim.lr": 1e30})
    done = project.run("-c", BARE, "mae")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("pretrain@mae: the loss is nan at step ") or "the loss is inf at step " in last
    assert "lower mae.optim.lr (now 1e+30)" in last
    assert not project.artifact("mae", "checkpoint.pt").exists()


def test_an_encoder_that_is_not_finite_is_not_handed_on(project: Project) -> None:
    project.set({"mae.optim.lr": 1e39, "mae.optim.warmup": 0.0, "mae.epochs": 1, "mae.batch_size": 200})
    done = project.run("-c", BARE, "mae")  # one step, whose loss is of the weights before it
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not project.artifact("mae", "checkpoint.pt").exists()


def test_a_batch_larger_than_the_train_split_is_one_sentence(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.set({"simclr.batch_size": 999})
    monkeypatch.chdir(project.root)
    with pytest.raises(
        StageError, match=r"^simclr\.batch_size is 999, the train split has (\d+) images; allowed: 2 to \1$"
    ):
        pretrain.main("simclr")


def test_the_learning_rate_and_the_epochs_are_where_the_params_say(undisturbed: Project) -> None:
    _, rows = outcome(undisturbed, "mae")
    per_epoch = len(rows) // 10
    assert [row["step"] for row in rows] == list(range(1, 10 * per_epoch + 1))
    assert [row["epoch"] for row in rows] == pytest.approx([row["step"] / per_epoch for row in rows])
    warm = 0.05 * len(rows)
    assert rows[1]["lr"] == pytest.approx(0.001 / warm)
    assert max(row["lr"] for row in rows) == pytest.approx(0.001, rel=1e-3)
    assert rows[-1]["lr"] < 1e-6
