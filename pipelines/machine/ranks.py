"""The processes of one training run: how they start, end, and learn from the environment that they are ranks."""

import math
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress

from pipelines.machine import cores, gpus
from pipelines.project import stage
from pipelines.project.stage import TRY_AGAIN, StageError
from serving.host.free_ports import free_ports

GRACE, STOPPING = 30.0, 120.0  # s that the other ranks have when one has failed, or has stopped with a checkpoint
RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what a rank gets from torchrun
LAUNCHED = "ENCODER_FOUNDRY_LAUNCHED"  # set by `launch`, which holds the locks for its ranks


def enter(name: str, work: Callable[[str], None], doc: str | None, items: Collection[str]) -> None:
    """`stage.enter` for a training run, which may be one process of several."""
    (item,) = stage.asked(name, doc, items)
    to_the_end(lambda: stage.run(f"{name}@{item}", lambda: work(item), guarded()))


def share(processes: int) -> None:
    """Where this command shall be several processes and is none of them: start them, and exit as they do.

    Raises StageError where the environment makes no sense (`check_environment`).
    """
    check_environment()
    if processes > 1 and not started():
        sys.exit(launch(processes))


def launch(processes: int) -> int:
    """This command again, once a rank, on this machine: what torchrun does, but SIGTERM's exit code comes through.

    Ends when all have ended; when one has failed, or stopped with a checkpoint, soon after it and with its exit code.
    """
    meeting = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_ports(1)[0]),
        "WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": str(threads(processes)),
        LAUNCHED: str(os.getpid()),
    }
    command = [sys.executable, *sys.orig_argv[1:]]
    with gpus.first(processes):
        ranks: list[subprocess.Popen[bytes]] = []
        asked = False

        def pass_on(*_: object) -> None:
            nonlocal asked
            asked = True
            for rank in ranks:
                rank.terminate()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, pass_on)
        for i in range(processes):
            own = {"RANK": str(i), "LOCAL_RANK": str(i)}
            ranks.append(subprocess.Popen(command, env=os.environ | meeting | own))
        if asked:  # while they were started
            pass_on()
        return ended(ranks)


def ended(ranks: "list[subprocess.Popen[bytes]]") -> int:
    """Wait for all ranks, and end those that stay behind; the exit code of the whole, as a shell has it."""
    failed, ending, ours = 0, math.inf, set[tuple[int, int]]()  # ours: how those end that we end, pid and code
    while running := [rank for rank in ranks if rank.poll() is None]:
        if codes := {rank.returncode for rank in ranks} - {None, 0}:
            failed = failed or next(iter(codes - {TRY_AGAIN}), 0)  # the others are ended by us
            ending = min(ending, time.monotonic() + (STOPPING if codes == {TRY_AGAIN} else GRACE))
            for rank in running:
                number = signal.SIGTERM if time.monotonic() < ending else signal.SIGKILL
                ours.add((rank.pid, -number))
                rank.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            running[0].wait(1)
    codes = {rank.returncode for rank in ranks if (rank.pid, rank.returncode) not in ours}
    code = failed or next(iter(codes - {0, TRY_AGAIN}), max(codes))
    return 128 - code if code < 0 else code


def threads(processes: int) -> int:
    """Of each rank: the threads that this command was given, or else the machine's cores, shared by all."""
    return max(1, int(os.environ.get("OMP_NUM_THREADS", cores.count())) // processes)


def to_the_end(work: Callable[[], None]) -> None:
    """Do the work of a process, and as one of several leave immediately when it is done.

    Who takes the process group apart waits for gloo's threads, which may wait for the interpreter's lock, which that
    one holds: for ever, if luck is bad. So nothing is taken apart, not even the frames of an error.
    """
    if not started():
        return work()
    try:
        work()
        leave(0)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        leave(1 if isinstance(error.code, str) else error.code or 0)
    except BaseException:
        traceback.print_exc()
        leave(1)


def leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def size(processes: int) -> int:
    """Processes that share a batch: `pretrain.processes`, unless they are started already."""
    return int(os.environ["WORLD_SIZE"]) if started() else processes


def guarded() -> bool:
    """Whether nobody else may do the same: the only process, or rank 0 of torchrun; `launch` sees to its ranks."""
    return not started() or (LAUNCHED not in os.environ and first())


def started() -> bool:
    """Whether this process is a rank: of `launch`, of torchrun, or of what sets the same variables."""
    return all(name in os.environ for name in RANK)


def check_environment() -> None:
    """Raises StageError where the environment speaks of several ranks and does not say how they meet.

    Platforms set RANK=0 and WORLD_SIZE=1 for a program that runs once: that is a single process. Raises it also in a
    rank whose launcher has gone before the rank could ask to die with it.
    """
    if started() and os.environ.get(LAUNCHED, str(os.getppid())) != str(os.getppid()):
        raise StageError("The command that started this rank has ended. Run it again.")
    world, missing = os.environ.get("WORLD_SIZE", "1"), [name for name in RANK if name not in os.environ]
    if missing and world != "1":
        raise StageError(
            f"WORLD_SIZE is {world} in the environment, and {', '.join(missing)} is not set. Start the ranks with "
            "torchrun (docs/how-to/use-many-gpus.md), or unset WORLD_SIZE to train in one process."
        )


def first() -> bool:
    """Whether this process speaks and writes: the only one, or rank 0."""
    return int(os.environ.get("RANK", "0")) == 0 if started() else True
