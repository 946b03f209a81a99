"""How many stages run side by side, and which of those that wait is next."""

import heapq
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count


class Slots:
    """A number of places. When one is free, the thread of the highest rank gets it; of equal ranks, the first."""

    def __init__(self, number: int) -> None:
        self._free, self._changed = number, threading.Condition()
        self._waiting: list[tuple[float, int]] = []
        self._order = count()

    @contextmanager
    def hold(self, rank: float) -> Iterator[None]:
        """Wait for a place and keep it during the block."""
        with self._changed:
            own = (-rank, next(self._order))
            heapq.heappush(self._waiting, own)
            self._changed.wait_for(lambda: self._free and self._waiting[0] == own)
            heapq.heappop(self._waiting)
            self._free -= 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()
