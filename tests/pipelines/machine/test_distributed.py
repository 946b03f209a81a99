"""Many processes, or many parts, are one batch: the same losses, the same encoder, one voice."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.project.stage import TRY_AGAIN
from tests.pipelines.small_project import METHODS, Project
from tests.pipelines.test_pretrain import wait_for

STEPS = 20
VIT = {"arch": "vit_nano", "patch_size": 4}
SPECIAL: dict[str, dict[str, Any]] = {
    # Without batch norm, which sees the whole batch; the last layer waits at first.
    "dino vit": {"dino.encoder": VIT, "dino.head_batch_norm": False, "dino.freeze_last_layer": 0.2},
    "simclr sgd": {"simclr.optim": {"name": "sgd", "lr": 0.01, "weight_decay": 1e-4}},
}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def train(project: Project, method: str, *launcher: str) -> list[dict[str, float]]:
    done = project.run(*launcher, "-m", "pipelines.pretrain", method)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in project.artifact(method, "history.jsonl").read_text().splitlines()]


def weights(project: Project, method: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(project.artifact(method, "checkpoint.pt"), weights_only=True)["weights"]
    return found


def assert_same(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    assert len(ours) == len(theirs) >= STEPS
    for key in ("loss", "grad_norm"):
        assert [r[key] for r in ours] == pytest.approx([r[key] for r in theirs], rel=1e-5)
    for key in ("held_out_loss", "effective_rank", "weight_norm"):  # of the steps that were watched
        figures = [[r[key] for r in rows if key in r] for rows in (ours, theirs)]
        assert figures[0] == pytest.approx(figures[1], rel=1e-5)
    assert ours[0]["loss"] != ours[-1]["loss"]


def method_of(what: str) -> str:
    """`dino vit` → `dino`"""
    return what.partition(" ")[0]


def arranged(project: Project, what: str = "") -> Project:
    """Float64, where sums in another order differ by next to nothing; 24 steps of 28 images; and what is special."""
    project.set({"pretrain.precision": "fp64"})
    for method in METHODS:
        project.set({f"{method}.batch_size": 28, f"{method}.epochs": 3})
    project.set(SPECIAL.get(what, {}))
    return project


@pytest.fixture
def exact(project: Project) -> Project:
    return arranged(project)


Alone = Callable[[str], tuple[list[dict[str, float]], dict[str, torch.Tensor]]]


@pytest.fixture(scope="module")
def alone(prepared_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Method, or a special one → the history and the encoder of one process with the whole batch."""

    @cache
    def trained(what: str) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
        root = tmp_path_factory.mktemp("alone") / "project"
        shutil.copytree(prepared_project.root, root, ignore=shutil.ignore_patterns(".scratch"))
        project = arranged(Project(root), what)
        return train(project, method_of(what)), weights(project, method_of(what))

    return trained


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_at_half_the_batch_are_one_process(exact: Project, alone: Alone, method: str) -> None:
    history, expected = alone(method)
    assert_same(train(exact, method, *TORCHRUN), history)
    for key, value in weights(exact, method).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("what", ["mae", "dino vit"])
def test_a_batch_in_parts_is_the_whole_batch(exact: Project, alone: Alone, what: str) -> None:
    method, (history, _) = method_of(what), alone(what)
    arranged(exact, what).set({f"{method}.accumulate": 4})
    assert_same(train(exact, method), history)
    exact.set({f"{method}.accumulate": 2})
    assert_same(train(exact, method, *TORCHRUN), history)


@pytest.mark.parametrize(
    ("changed", "errors"),
    [
        ({"simclr.accumulate": 2}, "simclr.accumulate is 2. Allowed: 1"),
        ({"dino.accumulate": 2}, "dino.accumulate is 2. Allowed: 1, for batch norm"),
        ({"mae.accumulate": 3}, "mae.batch_size is 28. Allowed: a multiple of 3, which is processes times accumulate"),
    ],
)
def test_a_batch_that_cannot_be_split_is_not(exact: Project, changed: dict[str, Any], errors: str) -> None:
    exact.set(changed)
    method = next(iter(changed)).split(".")[0]
    done = exact.run("-m", "pipelines.pretrain", method)
    assert done.returncode == 1
    assert errors in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("what", ["simclr sgd", "mae", "dino vit"])
def test_sharded_parameters_give_the_same_numbers(exact: Project, alone: Alone, what: str) -> None:
    """SimCLR by SGD, whose fused form has no rule for shards; the others by AdamW."""
    arranged(exact, what).set({"pretrain.sharded": True})
    assert_same(train(exact, method_of(what), *TORCHRUN), alone(what)[0])


def test_only_the_first_rank_speaks(exact: Project) -> None:
    done = exact.run(*TORCHRUN, "-m", "pipelines.pretrain", "mae")
    assert done.returncode == 0
    assert done.stderr.count("taken") == 1  # the last line of the progress
    assert not (Path(exact.root) / ".scratch" / "pretrain" / "mae" / "newest").exists()


def test_processes_that_are_stopped_go_on_alone_to_the_same_numbers(exact: Project, alone: Alone) -> None:
    unstopped, expected = alone("dino")
    exact.set({"pretrain.processes": 2})
    stopped = exact.start("-m", "pipelines.pretrain", "dino")
    history = exact.root / ".scratch" / "pretrain" / "dino" / "history.jsonl"
    wait_for(stopped, history.exists)
    stopped.terminate()
    _, errors = stopped.communicate()
    assert stopped.returncode == TRY_AGAIN
    assert errors.count("Run the same command to resume") == 1
    exact.set({"pretrain.processes": 1})
    assert_same(train(exact, "dino"), unstopped)
    for key, value in weights(exact, "dino").items():
        torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("code", [TRY_AGAIN, 1])
def test_a_rank_that_stays_behind_when_another_has_ended_is_ended(exact: Project, code: int) -> None:
    ranks = (
        "import sys, time; from pipelines.machine import ranks; ranks.GRACE = ranks.STOPPING = 1.0\n"
        "if not ranks.started(): sys.exit(ranks.launch(2))\n"
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"sys.exit({code}) if ranks.first() else time.sleep(900)"
    )
    assert exact.run("-c", ranks).returncode == code


def test_what_is_wrong_with_a_rank_is_a_sentence_and_ends_all(exact: Project) -> None:
    exact.set({"pretrain.processes": 3})
    done = exact.run("-m", "pipelines.pretrain", "mae")
    assert done.returncode == 1
    assert "mae.batch_size is 28. Allowed: a multiple of 3, which is processes times accumulate" in done.stderr
    assert "Traceback" not in done.stderr
