"""What every stage shares: the places of its files, one lock, and one sentence when it fails."""

import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from data import DataError
from models import CheckpointError
from pipelines.project import ConfigError
from serving.host.command import Parser, command

RAW = Path("data/raw")
PREPARED = Path("data/prepared")
SCRATCH = Path(".scratch")  # checkpoints of unfinished runs, locks; git-ignored, outside DVC's outs
SETTINGS = Path("artifacts/settings.yaml")
PROMOTED = Path("artifacts/promoted.json")
PAGE = Path("artifacts/report.html")
ESTIMATE = SCRATCH / "estimate.json"  # of the time of a run, by the plan
FLOW = "ENCODER_FOUNDRY_FLOW"  # the pid of the flow that started this process, or the one above it
TRY_AGAIN = 75  # EX_TEMPFAIL: a training run was stopped with a checkpoint; the same command resumes it


class StageError(Exception):
    """What is wrong and what to do: one sentence for the person."""


def artifact(method: str, name: str) -> Path:
    """Where a stage of a method puts or finds a file."""
    return Path("artifacts/methods", method, name)


def baseline(baseline: str, name: str) -> Path:
    """The same of a baseline."""
    return Path("artifacts/baselines", baseline, name)


def enter(name: str, work: Callable[..., None], doc: str | None, items: Collection[str] = ()) -> None:
    """The command `python -m pipelines.<name> [ITEM]`. items: what ITEM may be; none: the command takes nothing."""
    item = asked(name, doc, items)
    run("@".join([name, *item]), lambda: work(*item))


def asked(name: str, doc: str | None, items: Collection[str]) -> list[str]:
    """The command's argument, if it takes one. Ends the process with one sentence where it is missing or wrong."""
    parser, allowed = Parser(prog=f"python -m pipelines.{name}", description=doc), ", ".join(items)
    if not items:
        parser.parse_args()
        return []
    parser.add_argument("item", nargs="?", metavar="NAME", help=f"one of {allowed}")
    given = parser.parse_args().item
    if given is None:
        parser.error(f"The name is missing. Allowed: {allowed}.")
    if given not in items:
        parser.error(f"The name {given} is not known. Allowed: {allowed}.")
    return [given]


def run(name: str, work: Callable[[], None], alone: bool = True) -> None:
    """Do a stage's work alone, die with the parent, and turn what people can mend into a sentence and exit code 1.

    alone: wait while another process runs the same stage; not asked of the processes of one training run.
    """
    die_with_parent()
    expected = (ConfigError, DataError, CheckpointError, StageError)
    with command(*expected, name=name), locked(name) if alone else nullcontext():
        work()


def die_with_parent() -> None:
    """A killed parent must not leave a process behind that goes on writing (Linux; elsewhere nothing happens).

    The kernel tells only of deaths from now on. If the flow died while this process still imported its modules, the
    process ends here.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        try:
            os.kill(int(os.environ.get(FLOW, os.getpid())), 0)
        except PermissionError:
            pass  # it lives, as another user
        except ProcessLookupError:
            sys.exit(1)


@contextmanager
def locked(name: str, wait: bool = True, aloud: bool = True) -> Iterator[None]:
    """Hold the lock of this name in the scratch folder. Wait while another process has it, and say so if aloud.

    wait=False: raise BlockingIOError instead.
    """
    path = SCRATCH / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            if aloud:
                print(f"Another process is running {name}; waiting for it to finish.", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
