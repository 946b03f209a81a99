"""What the watchdog knows about one name: its version, whether it is ready and since when, and what was tried."""

import time
from concurrent.futures import Future
from datetime import UTC, datetime

import psutil

from serving.rollout.served_file import Version


class Watched:
    """One name and the version that answers to it."""

    def __init__(self, name: str, version: Version) -> None:
        self.name, self.version = name, version
        self.ready, self.reason = False, "it has not answered yet"
        self.changed = datetime.now(UTC)
        self.asked = self.answered = self.helped = time.monotonic()
        self.asking: Future[None] | None = None
        self.workers: dict[int, str] = {}  # which process is of which version
        self.helps = 0  # measures taken since it last answered
        self.others: list[str] = []  # TorchServe's counters of answers, when it was last asked
        self.computed: dict[int, float] = {}  # the workers' CPU seconds then

    def turn(self, is_ready: bool, reason: str = "") -> None:
        """Note whether it is ready, and since when."""
        if is_ready != self.ready:
            self.changed = datetime.now(UTC)
        self.ready, self.reason = is_ready, reason


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process."""
    try:
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    except psutil.NoSuchProcess:
        return 0.0


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False
