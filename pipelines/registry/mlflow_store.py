"""MLflow's store: find it, check that it answers, get the experiment of a data set, download an encoder.

The store is mlflow.db at the root unless MLFLOW_TRACKING_URI says otherwise.
"""

import fcntl
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.project import stage
from pipelines.project.stage import StageError
from serving.host.command import explain

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

SQLITE = "sqlite:///"
INSIDE = ((".dvc", "tmp", "exps"), (".scratch", "studies"))  # where `dvc exp run` and studies make projects
KIND = {"mlflow.experimentKind": "custom_model_development"}  # the page opens with curves and figures
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # for privacy, and so that nothing waits without a network
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # it logs tracebacks of errors that it also raises
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # a server that is down must not hold up training for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


def connect() -> "MlflowClient":
    """A client of the store, which is created if missing: by one process at a time, so that migrations do not race.

    Raises StageError when the store does not answer.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_TRACKING_URI"] = address()
    import mlflow  # noqa: PLC0415 - importing it takes a second, and training can run without MLflow

    warnings.filterwarnings("ignore", category=UserWarning, module="mlflow")  # advice, not faults
    with locked(), chdir(root()):  # a new store puts its files into mlruns in this folder
        try:
            client = mlflow.MlflowClient()
            client.search_experiments(max_results=1)
        except Exception as error:  # every database driver has its own errors
            raise StageError(
                f"MLflow's store does not answer: MLFLOW_TRACKING_URI is {masked(os.environ['MLFLOW_TRACKING_URI'])} "
                f"({reason(error)}). Start the server, correct the address, or unset it to use mlflow.db here."
            ) from None
    return client


def root() -> Path:
    """The working directory; in a temporary workspace or in the cell of a study, the project that it belongs to.

    A store there would be lost with it, and its version numbers would mean nothing elsewhere.
    """
    here = Path.cwd()
    inside = (path.parents[len(parts) - 1] for path in here.parents for parts in INSIDE if ends(path, parts))
    return next(inside, here)


def ends(path: Path, parts: tuple[str, ...]) -> bool:
    return path.parts[-len(parts) :] == parts


def is_temporary() -> bool:
    """Whether this is a temporary workspace of `dvc exp run`, or a cell, whose results may never be applied."""
    return root() != Path.cwd()


def own_store() -> str:
    """The address of the store of this project."""
    return f"{SQLITE}{root() / 'mlflow.db'}"


def address() -> str:
    """MLFLOW_TRACKING_URI, or the project's own store; a SQLite file by its absolute path. Raises StageError."""
    given = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or own_store()
    file = given.removeprefix(SQLITE)
    if given.startswith("sqlite:") and file in ("", ":memory:", "sqlite:", "sqlite://"):
        raise StageError(
            f"MLFLOW_TRACKING_URI is {given}, a store in memory that will be lost. Name a file: {SQLITE}mlflow.db."
        )
    return f"{SQLITE}{root() / file}" if given.startswith(SQLITE) else given


def masked(text: str) -> str:
    """The text with user, password or token of an address replaced by ***."""
    return re.sub(r"(password=)[^\s&'\"]+", r"\1***", re.sub(r"://[^\s'\"]*@", "://***@", text))


def reason(error: Exception) -> str:
    """The first line of a library's error, cut short and without passwords."""
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return masked(line)[:300].rstrip(". ")


@contextmanager
def refusals() -> Iterator[None]:
    """Turn an error of MLflow in the block into a StageError for the person. MLflow need not be installed."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "mlflow":
            raise
        raise StageError(
            explain(error)
            or f"MLflow's store {masked(os.environ['MLFLOW_TRACKING_URI'])} refused ({reason(error)}). "
            "Open it with `make ui`, then run the same command again."
        ) from None


@contextmanager
def locked() -> Iterator[None]:
    """Hold the lock that keeps two of our processes from creating the same thing at the same time."""
    path = root() / stage.SCRATCH / "locks" / "mlflow.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def experiment(client: "MlflowClient", dataset: str) -> str:
    """The id of the experiment that holds the runs of a data set; created if it is missing.

    A deleted experiment is restored. If the project was moved or copied, the experiment's files are still at the old
    place: it then gets another name, and a new experiment takes its place.
    """
    with locked(), chdir(root()):
        found = client.get_experiment_by_name(dataset)
        if found and found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
            print(f"The MLflow experiment {dataset} was deleted. It is restored.", file=sys.stderr)
        if found and is_elsewhere(found):
            name = f"{dataset}, until the project moved ({found.experiment_id})"
            client.rename_experiment(found.experiment_id, name)
            print(
                f"The MLflow experiment {dataset} keeps its files in {found.artifact_location}, where this project was "
                f"before. It is now called {name!r}, and a new experiment takes its place.",
                file=sys.stderr,
            )
            found = None
        return str(found.experiment_id if found else client.create_experiment(dataset, tags=KIND))


def is_elsewhere(found: "Experiment") -> bool:
    """Whether an experiment of the project's own store keeps its files in mlruns at the project's previous place."""
    from mlflow.utils.file_utils import local_file_uri_to_path  # noqa: PLC0415
    from mlflow.utils.uri import is_local_uri  # noqa: PLC0415

    if os.environ["MLFLOW_TRACKING_URI"] != own_store() or not is_local_uri(found.artifact_location):
        return False
    place = Path(local_file_uri_to_path(found.artifact_location))
    by_default = (place.parent.name, place.name) == ("mlruns", found.experiment_id)
    return by_default and place.parents[1].resolve() != root()


def download(encoder: str) -> Path:
    """The folder of the encoder at a `models:/…` address (version or alias). Creates no store. Raises StageError."""
    store, ours = address(), address().removeprefix(SQLITE)
    if store != ours and not Path(ours).exists():
        raise StageError(
            f"The encoder {encoder} is wanted, but {ours} is missing. Run this in the folder of the project, or set "
            "MLFLOW_TRACKING_URI to its store."
        )
    connect()
    import mlflow  # noqa: PLC0415

    try:
        folder = Path(mlflow.artifacts.download_artifacts(encoder))
        return next(folder.rglob("weights.safetensors")).parent
    except StopIteration:
        raise StageError(
            f"The model {encoder} is in MLflow's store, but this project did not write it. Choose another version."
        ) from None
    except (mlflow.MlflowException, OSError) as error:
        if (sentence := explain(error)) is not None:
            raise StageError(sentence) from None
        raise StageError(
            f"The encoder {encoder} cannot be read from MLflow's store ({reason(error)}). Run `make ui` to see which "
            "versions there are."
        ) from None
