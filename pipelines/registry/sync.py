"""Bring training runs that MLflow does not know into its store: `python -m pipelines.registry.sync`.

It takes finished runs from artifacts/methods/<method>/ and unfinished ones from .scratch/pretrain/, wherever they were
trained. `register` later continues the same MLflow run. What is registered already stays as it is. Receipts of another
store are removed, so that `dvc repro` registers their encoders here.
"""

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from models.methods import METHODS
from pipelines.project import config, stage
from pipelines.project.history import read_history
from pipelines.project.stage import StageError
from pipelines.registry import mlflow_store, receipts, runs
from pipelines.saving.pretrained import Pretrained

if TYPE_CHECKING:
    from mlflow import MlflowClient


@mlflow_store.refusals()
def main() -> None:
    try:
        client = mlflow_store.connect()
    except ImportError:
        raise StageError(
            "MLflow is not installed here. Run `make setup`, or sync on the machine that has it."
        ) from None
    found = 0
    for name in METHODS:
        if stage.artifact(name, "checkpoint.pt").exists() and stage.artifact(name, "history.jsonl").exists():
            with stage.locked(f"register@{name}"):
                print(f"{name}: {finished(client, name)}")
            found += 1
    for history in sorted(stage.SCRATCH.glob("pretrain/*/history.jsonl")):
        name = history.parent.name.split("-")[0]
        if name in METHODS and read_history(history):
            try:
                with stage.locked(f"pretrain@{name}", wait=False):
                    print(f"{name}, unfinished: {unfinished(client, name, history)}")
            except BlockingIOError:
                print(f"{name}, unfinished: skipped, because it is training now")
            found += 1
    receipts.reconcile(client)
    if not found:
        print(
            "There is nothing to sync. Neither artifacts/methods/<method>/checkpoint.pt with its history.jsonl "
            f"nor {stage.SCRATCH}/pretrain/<method>/history.jsonl exists here."
        )


def finished(client: "MlflowClient", name: str) -> str:
    """Sync the training run in artifacts/methods/<name>/; return what was done."""
    trained = read(stage.artifact(name, "checkpoint.pt"))
    spec, digest = trained.spec, receipts.encoder_digest(trained.spec, trained.weights)
    if version := receipts.find(client, f"{spec['dataset']}-encoder", receipts.ENCODER, digest):
        return f"registered already, version {version.version}, run {version.run_id}"
    history = stage.artifact(name, "history.jsonl")
    run = runs.ensure_run(client, spec["dataset"], name, trained.run_id, history)
    outcome = replay(client, run, history)
    if client.get_run(run).info.status != "FINISHED":
        client.set_terminated(run)
    return outcome


def unfinished(client: "MlflowClient", name: str, history: Path) -> str:
    """The same for an unfinished training run. It continues the MLflow run that it remembers, if this store has it."""
    remembered = sorted(history.parent.glob("run-*"), key=lambda path: path.stat().st_mtime)
    known = remembered[-1].read_text(encoding="utf-8") if remembered else None
    return replay(client, runs.ensure_run(client, config.load().dataset, name, known, history), history)


def replay(client: "MlflowClient", run: str, history: Path) -> str:
    return f"{runs.replay(client, run, history):,} rows added to run {run}"


def read(path: Path) -> Pretrained:
    """Read a checkpoint. Raises StageError when the file is not complete."""
    try:
        return Pretrained.read(path)
    except (OSError, EOFError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise StageError(f"The file {path} cannot be read ({reason.rstrip('.')}). Copy it again.") from None


if __name__ == "__main__":
    stage.enter("registry.sync", main, __doc__)
