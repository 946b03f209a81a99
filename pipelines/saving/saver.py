"""Write checkpoints while training continues: the loop waits for a copy of the state, not for the disk."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from pipelines.saving.checkpoints import Checkpoints


class Saver:
    """Saves one checkpoint at a time in a thread. The context waits for it at its end. Without `saves` it does nothing.

    The next call raises an error (StageError) of the thread.
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
        """Start to save this state and the present history. The caller must not change the state afterwards."""
        self.wait()
        if self.saves:
            self.pending = self.pool.submit(self.saves.save, state, self.saves.rows())

    def check(self) -> None:
        """Raise an error of the thread, without waiting for it."""
        if self.pending and self.pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the checkpoint is on the disk."""
        pending, self.pending = self.pending, None
        if pending:
            pending.result()
