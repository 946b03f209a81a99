"""All that speaks to MLflow.

The store is mlflow.db at the root unless MLFLOW_TRACKING_URI says otherwise. `history.jsonl` is the truth of a
run; MLflow is a sink into which it can be replayed, steps that are there already left out.
"""

import fcntl
import json
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import stage
from pipelines.stage import StageError

if TYPE_CHECKING:
    from mlflow import MlflowClient

FLUSH_SECONDS = 5.0
KIND = {"mlflow.experimentKind": "custom_model_development"}  # the page opens with curves and figures
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nobody is watched, nothing waits offline
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # a server that is down must not hold up a training for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
Row = Mapping[str, float]


def connect() -> "MlflowClient":
    """A client of the store, which is made first if need be: by one process at a time, or migrations race."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{Path('mlflow.db').resolve()}")
    import mlflow  # noqa: PLC0415 - a second of import that training on a bare machine does without

    warnings.filterwarnings("ignore", category=UserWarning, module="mlflow")  # advice, not faults
    with locked():
        client = mlflow.MlflowClient()
        try:
            client.search_experiments(max_results=1)
        except mlflow.MlflowException as error:
            raise StageError(f"MLflow's store {os.environ['MLFLOW_TRACKING_URI']} does not answer: {error}") from None
    return client


@contextmanager
def locked() -> Iterator[None]:
    """Hold what guards the store against two of our processes making the same thing at once."""
    path = stage.SCRATCH / "locks" / "mlflow.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def experiment(client: "MlflowClient", dataset: str) -> str:
    """The id of the experiment that holds a dataset's runs; made if need be."""
    with locked():
        found = client.get_experiment_by_name(dataset)
        return str(found.experiment_id if found else client.create_experiment(dataset, tags=KIND))


def ensure_run(client: "MlflowClient", dataset: str, name: str, run_id: str | None) -> str:
    """The run of this id if the store has it, else a new one of that name."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    if run_id:
        try:
            return str(client.get_run(run_id).info.run_id)
        except MlflowException:
            pass  # another store than the one the run was written to
    return str(client.create_run(experiment(client, dataset), run_name=name).info.run_id)


def drop_run(client: "MlflowClient", run_id: str, unless: str) -> None:
    """Delete the run of a training that turned out to repeat an earlier one."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    if run_id and run_id != unless:
        with suppress(MlflowException):  # not in this store
            client.delete_run(run_id)


def log_rows(client: "MlflowClient", run_id: str, rows: Iterable[Row]) -> None:
    """Rows of a history, each with its `step`, as metrics of the same names."""
    from mlflow.entities import Metric  # noqa: PLC0415

    now = int(time.time() * 1000)
    metrics = [Metric(k, v, now, int(row["step"])) for row in rows for k, v in row.items() if k != "step"]
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])


def replay(client: "MlflowClient", run_id: str, history: Path) -> None:
    """Bring the run up to date with history.jsonl."""
    logged = max((m.step for m in client.get_metric_history(run_id, "loss")), default=0)
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    log_rows(client, run_id, (row for row in rows if row["step"] > logged))


def register(client: "MlflowClient", model: str, logged: Any, tags: Mapping[str, str]) -> Any:
    """A logged model as a new version of a registered model, which is made if need be."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    with locked():
        try:
            client.get_registered_model(model)
        except MlflowException:
            client.create_registered_model(model)
    return client.create_model_version(
        model, logged.model_uri, logged.run_id, tags=dict(tags), model_id=logged.model_id
    )


def download(address: str) -> Path:
    """The folder of the encoder at a `models:/…` address (version or alias)."""
    connect()
    import mlflow  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        folder = Path(mlflow.artifacts.download_artifacts(address))
        return next(folder.rglob("weights.safetensors")).parent
    except (MlflowException, StopIteration) as error:
        why = getattr(error, "message", "no encoder's folder")
        raise StageError(f"{address} is not in MLflow's store ({why}); register it: dvc repro -f register") from None


def versions(client: "MlflowClient", model: str, tag: str, value: str) -> list[Any]:
    """Versions of a model with this tag; none where the model is unknown."""
    return list(client.search_model_versions(f"name = '{model}' and tags.{tag} = '{value}'"))


class LiveRun:
    """A run that can be watched while it trains. Without MLflow, or when the store fails, training goes on alone."""

    def __init__(self, dataset: str, name: str, remembered: Path):
        """remembered: the file that keeps the run's id, so that a resumed training goes on in the same run."""
        self.id = ""
        self.pending: list[Row] = []
        self.flushed = time.monotonic()
        known = remembered.read_text() if remembered.exists() else None
        try:
            self.client = connect()
            self.id = ensure_run(self.client, dataset, name, known)
            history = self.client.get_metric_history(self.id, "loss")
            self.logged = max((m.step for m in history), default=0)
            remembered.write_text(self.id)
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
        if self.id:
            try:
                log_rows(self.client, self.id, (row for row in rows if row["step"] > self.logged))
            except Exception as error:
                self.give_up(error)
        self.flushed = time.monotonic()

    def fail(self) -> None:
        """Send what is pending and mark the run as failed."""
        self.close()
        if self.id:
            self.client.set_terminated(self.id, "FAILED")

    def give_up(self, error: Exception) -> None:
        """Whatever the store's failure is, it must not stop a training; registration replays the history."""
        self.id = ""
        print(f"MLflow does not take the curves now, training goes on: {error}", file=sys.stderr)


def flat(params: Any, prefix: str = "") -> dict[str, str]:
    """Nested params as MLflow keeps them: dotted names and texts."""
    if isinstance(params, Mapping):
        return {k: v for name, value in params.items() for k, v in flat(value, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): str(params)}
