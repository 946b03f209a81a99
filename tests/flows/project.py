"""The project of this package, and how its tests ask its artifacts, MLflow and Prefect."""

import json
import sqlite3
import subprocess
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient

from tests.pipelines.small_project import Project

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Flows:
    """A project after four flow runs, and what each of them printed."""

    project: Project
    broken: Done
    mended: Done
    again: Done
    changed: Done
    before: tuple[int, int]  # runs and versions in MLflow before `again`
    after: tuple[int, int]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.project.root}/mlflow.db")

    def json(self, *parts: str) -> Any:
        """A file of a method or a baseline, or of the whole pipeline."""
        path = self.project.artifact(*parts) if len(parts) > 1 else self.project.root / "artifacts" / parts[0]
        return json.loads(path.read_text())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """From Prefect's database."""
        with sqlite3.connect(self.project.root / ".prefect" / "prefect.db") as database:
            return database.execute(query).fetchall()

    def tasks(self, flow: int) -> dict[str, str]:
        """Task run → state, of the flow run of that number."""
        (run,) = self.rows(f"select id from flow_run order by created limit 1 offset {flow}")[0]
        named = self.rows(f"select name, state_name from task_run where flow_run_id = '{run}'")
        assert len(dict(named)) == len(named)
        return dict(named)
