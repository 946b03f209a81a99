"""A study in MLflow: one parent run, and the training runs of its cells as its children."""

import hashlib
import json
from typing import TYPE_CHECKING

from pipelines.registry import mlflow_store, runs
from pipelines.saving.pretrained import Pretrained
from pipelines.studies import figure, result
from pipelines.studies.cell import Cell, Cells
from pipelines.studies.result import Result

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT, STUDY = "mlflow.parentRunId", "study"


@mlflow_store.refusals()
def record(found: Result, cells: Cells) -> None:
    """Bring the study into MLflow; what is there already stays."""
    client = mlflow_store.connect()
    parent = parent_run(client, found)
    for (level, seed), cell in cells.items():
        child(client, parent, found, level, seed, cell)
    for key, value in result.summary(found).items():
        client.set_tag(parent, key, value)
    client.set_terminated(parent)


def parent_run(client: "MlflowClient", found: Result) -> str:
    """The run of this study at this scale."""
    where = mlflow_store.experiment(client, found.dataset)
    name = f"study {found.name} ({found.scale})"
    known = client.search_runs([where], f"tags.{STUDY} = '{name}'", max_results=1)
    return str(
        known[0].info.run_id if known else client.create_run(where, run_name=name, tags={STUDY: name}).info.run_id
    )


def child(client: "MlflowClient", parent: str, found: Result, level: str, seed: int, cell: Cell) -> None:
    """The training run of a cell. One that several studies share is the child of the first, and has the tags of all."""
    history = cell.artifact("history.jsonl")
    trained = Pretrained.read(cell.artifact("checkpoint.pt"))
    run = runs.ensure_run(client, cell.images.dataset, cell.method, trained.run_id, history)
    tags = client.get_run(run).data.tags
    digest = hashlib.sha256(cell.params.encode()).hexdigest()
    if tags.get("cell") != digest:
        runs.replay(client, run, history)
        own = json.loads(cell.artifact("metrics.json").read_text(encoding="utf-8"))[cell.method]
        for key, value in own.items():
            client.log_metric(run, key, value)
        runs.finish(client, run, figure.trained(cell))
    own_tags = {PARENT: tags.get(PARENT, parent), "cell": digest, f"{STUDY} {found.name}": level, "seed": str(seed)}
    for key, value in own_tags.items():
        client.set_tag(run, key, value)
