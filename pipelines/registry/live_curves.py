"""Send the curves of a training run to MLflow while it trains."""

import sys
import time
from pathlib import Path
from typing import Literal

from pipelines.project.history import Row
from pipelines.registry import mlflow_store, runs

FLUSH_SECONDS = 5.0


class LiveRun:
    """A run that people can watch in MLflow. Without MLflow, or when the store fails, training continues without it."""

    def __init__(self, dataset: str, name: str, remembered: Path):
        """remembered: the file that keeps the run's id, so that a resumed training run continues the same MLflow run.

        The training loop appends its rows to history.jsonl beside that file. Before the first row, the file may be
        that of an earlier run.
        """
        self.id, self.name, self.history = "", name, remembered.with_name("history.jsonl")
        self.pending: list[Row] = []
        self.flushed = time.monotonic()
        known = remembered.read_text(encoding="utf-8") if remembered.exists() else None
        try:
            self.client = mlflow_store.connect()
            self.id = runs.ensure_run(self.client, dataset, name, known)
            self.client.update_run(self.id, "RUNNING")  # also when it was stopped before
            self.logged = runs.logged_steps(self.client, self.id)
            remembered.write_text(self.id, encoding="utf-8")
        except ImportError:
            pass
        except Exception as error:
            self.give_up(error)

    def log(self, row: Row) -> None:
        self.pending.append(row)
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.close()

    def close(self) -> None:
        """Send what is pending."""
        rows, self.pending = self.pending, []
        if self.id and rows:
            try:
                digest = runs.training_digest(self.name, self.history)
                self.client.set_tag(self.id, runs.DIGEST, digest)
                runs.log_rows(self.client, self.id, (row for row in rows if row["step"] not in self.logged))
            except Exception as error:
                self.give_up(error)
        self.flushed = time.monotonic()

    def end(self, status: Literal["FAILED", "KILLED"]) -> None:
        """Send what is pending and set the status of the run. A KILLED run may be resumed."""
        self.close()
        if self.id:
            try:
                self.client.set_terminated(self.id, status)
            except Exception as error:
                self.give_up(error)

    def give_up(self, error: Exception) -> None:
        """A failure of the store must not stop a training run. Registration replays the history later."""
        self.id = ""
        print(
            f"Warning: MLflow does not take the curves ({mlflow_store.reason(error)}). Training continues without it.",
            file=sys.stderr,
        )
