"""A flow whose output goes into a file: few lines, each with the time since the start."""

import sys
import threading
import time
from collections.abc import Sequence
from typing import TextIO

from data.progress import minutes
from pipelines.orchestration.display import Clock, Display, Row, State

QUIET_S = 10.0  # a stage that takes less is not named while it runs
EVERY_S = 30.0  # between two progress lines


class LogLines(Display):
    """A line for each stage at its end, and each half minute one line for all stages that run.

    A stage that found nothing to say, quickly, has no line.
    """

    def __init__(self, names: Sequence[str], stream: TextIO | None = None, clock: Clock = time.monotonic) -> None:
        super().__init__(names, clock)
        self._stream = sys.stdout if stream is None else stream
        self._said = clock()
        self._closed = threading.Event()
        threading.Thread(target=self._tick, daemon=True).start()

    def note(self, name: str, text: str) -> None:
        self._write(name, text)

    def end(self, name: str, state: State) -> None:
        super().end(name, state)
        row = self.rows[name]
        if state is State.UNCHANGED or (state is State.DONE and not row.figure and row.seconds < QUIET_S):
            return
        self._write(name, " · ".join(filter(None, (f"{state} in {row.seconds:.0f} s", row.figure))))

    def close(self) -> None:
        self._closed.set()

    def announce(self) -> None:
        """Say what runs, and how far it is, if that was last said half a minute ago."""
        with self.lock:
            long = [row for row in self.rows.values() if row.state is State.RUNNING and self.running(row) >= QUIET_S]
            if long and self._clock() - self._said >= EVERY_S:
                self._said = self._clock()
                left = self.left()
                whole = "" if left is None else f"about {minutes(left)} left: "
                self._write("running", whole + ", ".join(map(progress, long)))

    def _tick(self) -> None:
        while not self._closed.wait(1):
            self.announce()

    def _write(self, name: str, text: str) -> None:
        with self.lock:
            self._stream.write(f"{minutes(self.elapsed()):>7}  {name:<20} {text}\n")  # in one piece: threads write
            self._stream.flush()


def progress(row: Row) -> str:
    """`pretrain@mae 40 % (0:30 left)`, or the name alone while no more is known."""
    if not row.share:
        return row.name
    return f"{row.name} {100 * row.share:.0f} %" + (f" ({row.left} left)" if row.left else "")
