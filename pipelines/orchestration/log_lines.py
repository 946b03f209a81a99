"""A flow whose output goes into a file: few lines, each with the time since the start."""

import sys
import threading
import time
from collections.abc import Sequence
from typing import TextIO

from data.progress import Reading, minutes
from pipelines.orchestration.display import Clock, Display, State

QUIET_S = 10.0  # a stage that takes less says only that it has ended
EVERY_S = 30.0  # between two progress lines of a stage


class LogLines(Display):
    """A line when a stage has been running for a while, a progress line each half minute, a line at its end."""

    def __init__(self, names: Sequence[str], stream: TextIO | None = None, clock: Clock = time.monotonic) -> None:
        super().__init__(names, clock)
        self._stream = sys.stdout if stream is None else stream
        self._last: dict[str, float] = {}  # name → when its last line was written
        self._closed = threading.Event()
        threading.Thread(target=self._tick, daemon=True).start()

    def note(self, name: str, text: str) -> None:
        self._write(name, text)

    def progress(self, name: str, reading: Reading) -> None:
        super().progress(name, reading)
        if self._clock() - self._last.get(name, self._clock()) >= EVERY_S:
            row = self.rows[name]
            left = f"{row.left} left" if row.left else ""
            self._write(name, " · ".join(filter(None, (f"{row.share:.0%}", left, row.figure))))

    def end(self, name: str, state: State) -> None:
        super().end(name, state)
        row = self.rows[name]
        if state is not State.UNCHANGED:
            self._write(name, " · ".join(filter(None, (f"{state} in {row.seconds:.0f} s", row.figure))))

    def close(self) -> None:
        self._closed.set()

    def announce(self) -> None:
        """Say which stages have been running for a while, if that has not been said."""
        with self.lock:
            for row in self.rows.values():
                new = row.state is State.RUNNING and row.name not in self._last
                if new and self.running(row) >= QUIET_S:
                    self._write(row.name, "running")

    def _tick(self) -> None:
        while not self._closed.wait(1):
            self.announce()

    def _write(self, name: str, text: str) -> None:
        with self.lock:
            self._last[name] = self._clock()
            self._stream.write(f"{minutes(self.elapsed()):>7}  {name:<20} {text}\n")  # in one piece: threads write
            self._stream.flush()
