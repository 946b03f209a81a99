"""Runs in MLflow. `python -m pipelines.registry.sync` brings in what was trained without it.

`history.jsonl` is the source of truth of a run. It can be replayed into MLflow, which skips the steps that are there.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.project.history import Row, read_history
from pipelines.registry.mlflow_store import experiment, locked

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROWS = 40  # per message; MLflow takes 1,000 figures
DIGEST = "training_digest"
BASELINE = "baseline"


def training_digest(name: str, history: Path) -> str:
    """Identifies a training run by its first row, which holds a measured speed. Empty before that row.

    The row is the same in the unfinished and in the finished history, on this machine and on the one that trained.
    """
    rows = read_history(history) if history.exists() else []
    return hashlib.sha256(json.dumps([name, rows[0]], sort_keys=True).encode()).hexdigest() if rows else ""


def find_runs(client: "MlflowClient", dataset: str, name: str, history: Path) -> list[str]:
    """The ids of the runs that have the digest of this training."""
    digest, where = training_digest(name, history), experiment(client, dataset)
    found = client.search_runs([where], f"tags.{DIGEST} = '{digest}'") if digest else []
    return [str(run.info.run_id) for run in found]


def ensure_run(client: "MlflowClient", dataset: str, name: str, run_id: str | None, history: Path | None = None) -> str:
    """The run of this id if the experiment has it, else the run of this history's training, else a new one.

    A training run has one MLflow run. Another one with its digest, for example synced before it ended, is deleted.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    run = ""
    if run_id:
        with suppress(MlflowException):  # the run was written to another store
            info = client.get_run(run_id).info
            here = info.lifecycle_stage == "active" and info.experiment_id == experiment(client, dataset)
            run = str(info.run_id) if here else ""
    same = find_runs(client, dataset, name, history) if history else []
    run = run or next(iter(same), "")
    if not run:
        run = str(client.create_run(experiment(client, dataset), run_name=name, tags={"method": name}).info.run_id)
    if history and (digest := training_digest(name, history)):
        client.set_tag(run, DIGEST, digest)
    for other in same:
        drop_run(client, other, unless=run)
    return run


def drop_run(client: "MlflowClient", run_id: str, unless: str) -> None:
    """Delete the MLflow run of a training run that repeats an earlier one."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    if run_id and run_id != unless:
        with suppress(MlflowException):  # not in this store
            client.delete_run(run_id)


def log_rows(client: "MlflowClient", run_id: str, rows: Iterable[Row]) -> None:
    """Log the rows of a history, each with its `step`, as metrics of the same names. A row is sent whole or not."""
    from mlflow.entities import Metric  # noqa: PLC0415

    now = int(time.time() * 1000)
    metrics = [[Metric(k, v, now, int(row["step"])) for k, v in row.items() if k != "step"] for row in rows]
    for start in range(0, len(metrics), ROWS):
        client.log_batch(run_id, metrics=[m for row in metrics[start : start + ROWS] for m in row])


def logged_steps(client: "MlflowClient", run_id: str) -> set[int]:
    return {m.step for m in client.get_metric_history(run_id, "loss")}


def replay(client: "MlflowClient", run_id: str, history: Path) -> int:
    """Bring the run up to date with history.jsonl; return the number of rows that were missing."""
    logged = logged_steps(client, run_id)
    rows = [row for row in read_history(history) if row["step"] not in logged]
    log_rows(client, run_id, rows)
    return len(rows)


def finish(client: "MlflowClient", run_id: str, lasted: float) -> None:
    """Set the end of a run to its start plus the seconds that training took, whenever it was registered."""
    started = client.get_run(run_id).info.start_time
    client.set_terminated(run_id, "FINISHED", end_time=started + round(1000 * lasted))


@contextmanager
def reopened(run_id: str) -> Iterator[None]:
    """Make an ended run the active one, because some MLflow calls log to the active run only; its end time is kept."""
    import mlflow  # noqa: PLC0415

    client = mlflow.MlflowClient()
    before = client.get_run(run_id).info
    with mlflow.start_run(run_id=run_id):
        yield
    client.set_terminated(run_id, before.status, end_time=before.end_time)


def ensure_baseline(client: "MlflowClient", dataset: str, name: str, metrics: dict[str, float]) -> None:
    """One run per baseline with its figures, so that it stands beside the methods; created once."""
    from mlflow.entities import Metric, RunTag  # noqa: PLC0415

    digest = hashlib.sha256(json.dumps([name, metrics], sort_keys=True).encode()).hexdigest()
    where = experiment(client, dataset)
    with locked():
        if client.search_runs([where], f"tags.figures_digest = '{digest}'", max_results=1):
            return
        run = client.create_run(where, run_name=name)
        client.log_batch(
            run.info.run_id,
            metrics=[Metric(k, v, run.info.start_time, 0) for k, v in metrics.items()],
            tags=[RunTag("method", name), RunTag("figures_digest", digest), RunTag(BASELINE, "true")],
        )
        finish(client, run.info.run_id, metrics.get("seconds", metrics.get("seconds_all", 0.0)))


def log_files(client: "MlflowClient", run_id: str, files: Mapping[str, bytes]) -> None:
    """Write files (path below the run's artifacts → content). A file at the same path is replaced."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in files.items():
            path = Path(scratch, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        client.log_artifacts(run_id, scratch)
