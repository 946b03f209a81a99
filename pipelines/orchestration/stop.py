"""How a flow ends early: SIGTERM (docker, systemd, SLURM) and Ctrl-C reach every stage, and training saves first."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

AGAIN = "\nStopped. Run the same command again to continue."
PATIENCE = 30.0  # s that the stages and Prefect's records have; docker waits 10, systemd 90
STOPPING = threading.Event()
RUNNING: set[int] = set()  # process ids of the stages; Prefect's own server is another child
CLEANUPS: list[Callable[[], None]] = []  # what gives the terminal back, before a sudden end
ASKED: list[int] = []  # the signals that came, in their order


def at_once(number: int, _frame: FrameType | None = None) -> None:
    """End with all that we started."""
    for cleanup in CLEANUPS[:]:
        with suppress(Exception):
            cleanup()
    print(AGAIN, file=sys.stderr, flush=True)
    terminate(psutil.Process().children(recursive=True))
    os._exit(128 + next(iter(ASKED), number))


def install() -> None:
    """Answer SIGTERM and Ctrl-C by `at_once` from now on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, at_once)


@contextmanager
def deaf_children() -> Iterator[None]:
    """What is started in the block does not hear Ctrl-C, which a terminal sends to every process.

    Prefect's server must live long enough to record how the flow ended, and the flow ends its stages itself. A shell
    may unblock the signal again, as dash does: DVC, which starts one, has its stage ignore it (dvc_process).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def stages_first() -> Iterator[None]:
    """Inside a Prefect flow: SIGTERM and Ctrl-C end the stages, then go on to Prefect, which records how the run ended.

    Prefect installs a handler of its own for SIGTERM when a flow starts. That one alone would wait for every stage to
    finish.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        STOPPING.set()
        ASKED.append(number)
        install()  # a second one does not wait
        backstop = threading.Timer(PATIENCE, at_once, (number,))
        backstop.daemon = True
        backstop.start()
        for pid in list(RUNNING):
            end(pid)
        (prefect if callable(prefect) else at_once)(signal.SIGTERM, frame)

    prefect, before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, prefect)
        signal.signal(signal.SIGINT, before)


def end(pid: int) -> None:
    """Ask a stage, and what it has started, to end."""
    with suppress(psutil.NoSuchProcess):
        stage = psutil.Process(pid)
        terminate([*stage.children(recursive=True), stage])


def terminate(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()  # training saves a checkpoint first
