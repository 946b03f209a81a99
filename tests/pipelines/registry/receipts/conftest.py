"""A project with three registered, exported and promoted encoders, without their training."""

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from models import start
from pipelines.evaluation import scores
from pipelines.project import config, stage
from pipelines.registry import mlflow_store
from tests.models.conftest import MEAN, STD
from tests.pipelines.evaluation.answers import score
from tests.pipelines.registry.receipts.encoders import line, use
from tests.pipelines.small_project import METHODS, Project

HEALTHY = {"name": "healthy", "because": "", "change": ""}
VAL = {"simclr": 99.0, "mae": 40.0, "dino": 60.0}


def train(name: str) -> None:
    """All that the stages before registration leave behind, without the training: an encoder as it is born."""
    c, prepared = config.load(), json.loads((stage.PREPARED / "manifest.json").read_text())
    encoder = start.method(name, c.method(name), 16, MEAN, STD, seed=0).encoder
    spec = {"method": name, "dataset": "digits", "image_size": 16, "preprocess": json.dumps(prepared["preprocess"])}
    content = {
        "weights": encoder.state_dict(),
        "spec": spec | {"encoder": asdict(c.method(name).encoder)},
        "run_id": "",
    }
    folder = stage.artifact(name, "checkpoint.pt").parent
    folder.mkdir(parents=True)
    torch.save(content, folder / "checkpoint.pt")
    (folder / "history.jsonl").write_text(json.dumps({"step": 1, "loss": VAL[name], "images_per_second": 9.0}) + "\n")
    for table, how in (("scores.csv", "linear"), ("finetune.csv", "finetune")):
        scores.write(folder / table, [score(name, how, "1", 0, 0, VAL[name])])  # type: ignore[arg-type]
    figures = {name: {"val_linear_all": VAL[name], "val_linear_1": VAL[name]}}
    for file, figure in {
        "metrics": figures,
        "finetune": {name: {"val_finetune_1": 0.0}},
        "diagnosis": HEALTHY,
    }.items():
        (folder / f"{file}.json").write_text(json.dumps(figure))


@pytest.fixture(scope="package")
def promoted(prepared_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with three registered, exported and promoted encoders."""
    root = tmp_path_factory.mktemp("promoted") / "project"
    shutil.copytree(prepared_project.root, root)
    with pytest.MonkeyPatch.context() as patch:
        use(root, patch)
        for name in METHODS:
            train(name)
        line()
    shutil.copytree(root, root.with_name("kept"))
    return root


@pytest.fixture
def here(promoted: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """That project as it was; the store's file stays, since MLflow holds it open."""
    kept = promoted.with_name("kept")
    use(promoted, monkeypatch)
    for name in ("artifacts", "mlruns"):
        shutil.rmtree(name, ignore_errors=True)
        shutil.copytree(kept / name, name)
    with closing(sqlite3.connect(kept / "mlflow.db")) as before, closing(sqlite3.connect("mlflow.db")) as now:
        before.backup(now)
    return mlflow_store.connect()
