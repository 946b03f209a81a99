"""What the environment makes of a process: alone, a rank, or neither."""

import os
import subprocess
import sys

import pytest

from pipelines.machine import ranks
from pipelines.project.stage import TRY_AGAIN, StageError

WHOLE = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ranks.RANK, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch: pytest.MonkeyPatch, *but: str, **more: str) -> None:
    for key, value in (WHOLE | more).items():
        if key not in but:
            monkeypatch.setenv(key, value)


def test_with_all_that_torchrun_tells_it_a_process_is_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch)
    ranks.check_environment()
    assert ranks.started()
    assert not ranks.first()
    assert ranks.size(8) == 2


@pytest.mark.parametrize("missing", [("LOCAL_RANK",), ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK")])
def test_a_world_of_one_as_platforms_set_it_is_a_single_process(
    missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, *missing, RANK="0", WORLD_SIZE="1")
    ranks.check_environment()
    assert not ranks.started()
    assert ranks.first()
    assert ranks.size(8) == 8


def test_a_larger_world_that_says_not_how_to_meet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, "LOCAL_RANK", "MASTER_ADDR")
    with pytest.raises(StageError) as refused:
        ranks.check_environment()
    assert str(refused.value) == (
        "WORLD_SIZE is 2 in the environment, and LOCAL_RANK, MASTER_ADDR is not set. Start the ranks with torchrun "
        "(docs/how-to/use-many-gpus.md), or unset WORLD_SIZE to train in one process."
    )


def test_ranks_share_the_threads_of_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.machine.cores.count", lambda: 64)
    assert ranks.threads(8) == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "21")  # as a flow sets it, with three stages side by side
    assert ranks.threads(8) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert ranks.threads(8) == 1


LATE = "time.sleep(900)"


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        (("sys.exit(0)", "sys.exit(0)"), 0),
        ((f"sys.exit({TRY_AGAIN})", f"sys.exit({TRY_AGAIN})"), TRY_AGAIN),
        (("sys.exit(0)", "os.kill(os.getpid(), 9)"), 137),  # the last one, for want of memory
        ((f"sys.exit({TRY_AGAIN})", "sys.exit(1)"), 1),
        ((LATE, "sys.exit(3)"), 3),
        ((f"sys.exit({TRY_AGAIN})", LATE), TRY_AGAIN),  # its own end by SIGTERM is our doing
        (("os.kill(os.getpid(), 15)", "os.kill(os.getpid(), 15)"), 143),
    ],
)
def test_the_exit_code_of_the_whole(ends: tuple[str, ...], code: int) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", f"import os, sys, time; {end}"]) for end in ends]
    for process, end in zip(processes, ends, strict=True):
        if end != LATE:
            process.wait()
    assert ranks.ended(processes) == code


def test_a_rank_whose_launcher_has_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch)
    monkeypatch.setenv(ranks.LAUNCHED, str(os.getppid()))
    ranks.check_environment()
    monkeypatch.setenv(ranks.LAUNCHED, "1" if os.getppid() != 1 else "2")
    with pytest.raises(StageError, match="The command that started this rank has ended"):
        ranks.check_environment()
