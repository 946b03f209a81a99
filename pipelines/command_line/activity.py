"""Which of the project's processes are running, known by the locks that they hold."""

import fcntl
from pathlib import Path

LOCKS = Path(".scratch/locks")
SERVER = Path("serving/run/lock")


def running() -> list[str]:
    """The flow and the stages that run now: `flow`, `pretrain@simclr`, …"""
    return [path.stem for path in sorted(LOCKS.glob("*.lock")) if is_held(path)]


def is_held(path: Path) -> bool:
    """Whether a process holds this lock. A lock that a dead process left behind is not held."""
    try:
        with path.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
