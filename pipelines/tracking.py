"""All that speaks to MLflow. `python -m pipelines.tracking sync` brings in what was trained without it.

The store is mlflow.db at the root unless MLFLOW_TRACKING_URI says otherwise. `history.jsonl` is the truth of a
run; MLflow is a sink into which it can be replayed, steps that are there already left out.
"""

import argparse
import fcntl
import hashlib
import json
import os
import tempfile
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

ROWS = 40  # a message; MLflow takes 1,000 figures
DIGEST = "training_digest"
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


def training_digest(name: str, history: Path) -> str:
    """What tells a training from every other: its first row, which holds a measured speed. Empty before that row.

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
    """The run of this id if the store has it, else the one of this history's training, else a new one of that name.

    A training has one run: another one with its digest (synced when it was not yet ended, say) is deleted.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    run = ""
    if run_id:
        with suppress(MlflowException):  # another store than the one the run was written to
            info = client.get_run(run_id).info
            run = str(info.run_id) if info.lifecycle_stage == "active" else ""
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
    """Delete the run of a training that turned out to repeat an earlier one."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    if run_id and run_id != unless:
        with suppress(MlflowException):  # not in this store
            client.delete_run(run_id)


def log_rows(client: "MlflowClient", run_id: str, rows: Iterable[Row]) -> None:
    """Rows of a history, each with its `step`, as metrics of the same names; a row goes whole or not at all."""
    from mlflow.entities import Metric  # noqa: PLC0415

    now = int(time.time() * 1000)
    metrics = [[Metric(k, v, now, int(row["step"])) for k, v in row.items() if k != "step"] for row in rows]
    for start in range(0, len(metrics), ROWS):
        client.log_batch(run_id, metrics=[m for row in metrics[start : start + ROWS] for m in row])


def logged_steps(client: "MlflowClient", run_id: str) -> set[int]:
    return {m.step for m in client.get_metric_history(run_id, "loss")}


def replay(client: "MlflowClient", run_id: str, history: Path) -> int:
    """Bring the run up to date with history.jsonl; the number of rows that it lacked."""
    logged = logged_steps(client, run_id)
    rows = [row for row in read_history(history) if row["step"] not in logged]
    log_rows(client, run_id, rows)
    return len(rows)


def read_history(path: Path) -> list[Row]:
    """The rows of a history.jsonl; a last one that was cut, or is just being written, is left out."""
    lines = path.read_text().splitlines(keepends=True)
    try:
        return [json.loads(line) for line in lines if line.endswith("\n")]
    except ValueError:
        raise StageError(f"{path} is damaged: not every line is a row; copy it again") from None


def log_files(client: "MlflowClient", run_id: str, files: Mapping[str, bytes]) -> None:
    """Path below the run's artifacts → content; what is there under the same path is replaced."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in files.items():
            path = Path(scratch, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        client.log_artifacts(run_id, scratch)


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


def flat(params: Any, prefix: str = "") -> dict[str, str]:
    """Nested params as MLflow keeps them: dotted names and texts."""
    if isinstance(params, Mapping):
        return {k: v for name, value in params.items() for k, v in flat(value, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): str(params)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.tracking", description=__doc__)
    parser.add_argument("what", choices=["sync"], help="bring trainings that MLflow does not know into it")
    parser.parse_args()
    from pipelines import sync  # noqa: PLC0415 - it stands on this module

    stage.run("sync", sync.main)


if __name__ == "__main__":
    main()
