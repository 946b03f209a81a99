"""Checkpoints written while the training goes on: the loop waits for a copy of the state, not for the disk."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from pipelines.saving.checkpoints import Checkpoints


class Saver:
    """Saves one checkpoint at a time in a thread, which is done when the context ends; without `saves` it does nothing.

    An error of the thread (StageError) is raised by the next call.
    """

    def __init__(self, saves: Checkpoints | None):
        self.saves = saves
        self.pool = ThreadPoolExecutor(1, "saver")
        self.pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()

    def save(self, state: Mapping[str, Any]) -> None:
        """Begin to save this state, which nobody changes from now on, and the history as it is now."""
        self.wait()
        if self.saves:
            self.pending = self.pool.submit(self.saves.save, state, self.saves.rows())

    def check(self) -> None:
        """Raise what the thread has met; wait for nothing."""
        if self.pending and self.pending.done():
            self.wait()

    def wait(self) -> None:
        """Until what was begun is on the disk."""
        pending, self.pending = self.pending, None
        if pending:
            pending.result()
