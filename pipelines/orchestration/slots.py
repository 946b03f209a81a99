"""How many stages run side by side, and which of those that could run is next."""

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager


class Slots:
    """A number of places. Of the stages whose upstream is done, those of the highest ranks get them.

    upstream: stage → the stages that it waits for. A stage that is not in there has no place of its own.
    """

    def __init__(self, number: int, upstream: Mapping[str, Collection[str]]) -> None:
        self.ranks: Mapping[str, float] = {}
        self._free, self._upstream = number, upstream
        self._started, self._done = set[str](), set[str]()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Wait until it is this stage's turn, and keep a place during the block."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_next(name))
            self._started.add(name)
            self._free -= 1
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def finish(self, name: str) -> None:
        """This stage has succeeded, or has nothing to do: what waits for it is ready now."""
        with self._changed:
            self._started.add(name)
            self._done.add(name)
            self._changed.notify_all()

    def _is_next(self, name: str) -> bool:
        """Whether a place is left when every ready stage of a higher rank, even one that has yet to ask, has one."""
        higher = [other for other in self._upstream if self._rank(other) > self._rank(name) and self._is_ready(other)]
        return self._free > len(higher)

    def _is_ready(self, name: str) -> bool:
        return name not in self._started and self._done.issuperset(self._upstream[name])

    def _rank(self, name: str) -> float:
        return self.ranks.get(name, 0.0)
