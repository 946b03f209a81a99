"""What a flow shows while it runs: the state of each stage, and the subclasses' ways to show it."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

from data.progress import Reading

Clock = Callable[[], float]


class State(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    UNCHANGED = "unchanged"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass
class Row:
    """A stage. share: of its work that is done; left: its time left, as `0:42`; figure: its one key figure."""

    name: str
    state: State = State.WAITING
    began: float | None = None
    seconds: float = 0.0
    share: float = 0.0
    left: str = ""
    figure: str = ""


class Display:
    """Context manager. The threads of a flow tell it what happens; the subclasses show it."""

    def __init__(self, names: Sequence[str], clock: Clock = time.monotonic) -> None:
        self.rows = {name: Row(name) for name in names}
        self.expected: Mapping[str, float] = {}  # name → seconds, once the plan has estimated them
        self.lock = threading.RLock()
        self._clock, self.began, self._trains_since = clock, clock(), 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was."""

    def start(self, name: str) -> None:
        with self.lock:
            row = self.rows.setdefault(name, Row(name))
            row.state, row.began = State.RUNNING, self._clock()

    def progress(self, name: str, reading: Reading) -> None:
        with self.lock:
            row = self.rows[name]
            row.share, row.left = reading.share, reading.left
            row.figure = reading.figures or row.figure

    def figure(self, name: str, figure: str) -> None:
        """What the stage found."""
        with self.lock:
            self.rows[name].figure = figure

    def note(self, name: str, text: str) -> None:
        """A sentence that a person should read."""

    def end(self, name: str, state: State) -> None:
        with self.lock:
            row = self.rows[name]
            row.state, row.left = state, ""
            row.seconds = self.running(row)

    def expect(self, seconds: Mapping[str, float]) -> None:
        """From now on the time left of the whole run is known: name → the estimated seconds of a stage."""
        with self.lock:
            self.expected, self._trains_since = seconds, self._clock()

    def running(self, row: Row) -> float:
        """Seconds since the stage began."""
        return 0.0 if row.began is None else self._clock() - row.began

    def elapsed(self) -> float:
        """Seconds since the flow began."""
        return self._clock() - self.began

    def left(self) -> float | None:
        """Seconds until the whole run ends: the estimate, corrected by the pace so far. None while nothing is known."""
        with self.lock:
            whole = sum(self.expected.values())
            done = sum(seconds * self._share(name) for name, seconds in self.expected.items())
            if not 0.05 * whole < done:
                return None
            return (self._clock() - self._trains_since) * (whole - done) / done

    def _share(self, name: str) -> float:
        row = self.rows.get(name)
        if row is None or row.state is State.WAITING:
            return 0.0
        return row.share if row.state is State.RUNNING else 1.0
