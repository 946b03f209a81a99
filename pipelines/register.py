"""Stage register@<method>: encoder and figures → a run and a version in MLflow, and version.json, their receipt.

Idempotent: an encoder with the same digest is registered once, and again only after it was deleted.
"""

import hashlib
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from data.shards import Manifest
from models import saved
from models.encoders.weights import Spec, restore
from models.methods import METHODS
from pipelines.engine.initial_weights import lineage
from pipelines.project import config, params, stage
from pipelines.project.config import Config
from pipelines.project.history import read_history, trained_seconds
from pipelines.registry import mlflow_store, provenance, receipts, runs
from pipelines.saving.pretrained import Pretrained

if TYPE_CHECKING:
    from mlflow import MlflowClient


@mlflow_store.refusals()
def main(name: str) -> None:
    c = config.load()
    trained = Pretrained.read(stage.artifact(name, "checkpoint.pt"))
    spec, weights = trained.spec, trained.weights
    metrics, finetuned, diagnosis = (
        json.loads(stage.artifact(name, f"{file}.json").read_text(encoding="utf-8"))
        for file in ("metrics", "finetune", "diagnosis")
    )
    digest = receipts.encoder_digest(spec, weights)
    client = mlflow_store.connect()
    model = f"{c.dataset}-encoder"
    version = receipts.find(client, model, receipts.ENCODER, digest)
    if version:
        again = runs.find_runs(client, c.dataset, name, stage.artifact(name, "history.jsonl"))
        for run_id in {trained.run_id, *again}:  # the same training run, repeated here or elsewhere
            runs.drop_run(client, run_id, unless=version.run_id)
    else:
        run_id = log_run(client, c, name, trained.run_id)
        for tag, value in lineage(spec).items():
            client.set_tag(run_id, tag, value)
        logged = log_encoder(run_id, spec, weights)
        version = receipts.register(client, model, logged, {"method": name, "encoder_digest": digest} | lineage(spec))
    cost = ("seconds", "images")  # of one fine-tuning
    own = {f"finetune_{k}" if k in cost else k: v for k, v in finetuned.get(name, {}).items()}
    log_figures(version.run_id, metrics[name] | own, diagnosis)
    for who in metrics | finetuned:
        if who != name:
            runs.ensure_baseline(client, c.dataset, who, metrics.get(who, {}) | finetuned.get(who, {}))
    batch = c.fitted(Manifest.read(stage.PREPARED).splits["train"]).method(name).batch_size
    history = read_history(stage.artifact(name, "history.jsonl"))
    runs.finish(client, version.run_id, trained_seconds(history, batch))
    receipt = {"model": model, "version": str(version.version), "encoder_digest": digest, "run_id": version.run_id}
    stage.artifact(name, "version.json").write_text(json.dumps(receipt, indent=2) + "\n", encoding="utf-8")
    print(f"Registered {model} version {version.version} ({name}).")


def log_run(client: "MlflowClient", c: Config, name: str, run_id: str) -> str:
    """Log params, curves, dataset and lineage as one finished run."""
    import mlflow  # noqa: PLC0415
    from mlflow.data.dataset_source_registry import resolve_dataset_source  # noqa: PLC0415
    from mlflow.data.meta_dataset import MetaDataset  # noqa: PLC0415

    history = stage.artifact(name, "history.jsonl")
    manifest = Manifest.read(stage.PREPARED)
    run_id = runs.ensure_run(client, c.dataset, name, run_id, history)
    runs.replay(client, run_id, history)
    shown = {
        "method": name,
        "seed": c.seed,
        "prepare": asdict(c.prepare),
        name: asdict(c.fitted(manifest.splits["train"]).method(name)),
        "probe": asdict(c.probe),
    }
    raw = provenance.dvc_digest("prepare", "deps", str(stage.RAW / c.dataset))
    lineage = {
        "method": name,
        "git_commit": provenance.git_commit(),
        "lock_digest": hashlib.sha256(Path("requirements.lock").read_bytes()).hexdigest(),
        "data_digest": manifest.digest,
        "dvc_digest_raw": raw,
        "dvc_digest_prepared": provenance.dvc_digest("prepare", "outs", str(stage.PREPARED)),
    }
    source = resolve_dataset_source(str((stage.RAW / c.dataset).resolve()))
    with mlflow.start_run(run_id=run_id):
        mlflow.log_params(params.flat(shown))
        mlflow.set_tags(lineage)
        mlflow.log_input(MetaDataset(source, name=c.dataset, digest=raw[:36]), context="pretraining")
        for file in ("history.jsonl", "metrics.json"):
            mlflow.log_artifact(str(stage.artifact(name, file)))
    return run_id


def log_figures(run_id: str, figures: dict[str, float], diagnosis: dict[str, str]) -> None:
    """Log the newest figures and the diagnosis of a method, even when its encoder is registered already."""
    import mlflow  # noqa: PLC0415

    with mlflow.start_run(run_id=run_id):
        mlflow.log_metrics(figures)
        details = {k: v for k, v in diagnosis.items() if k != "name"}
        mlflow.set_tags({"diagnosis": diagnosis["name"]} | {f"diagnosis_{k}": v for k, v in details.items()})


def log_encoder(run_id: str, spec: Spec, weights: dict[str, torch.Tensor]) -> Any:
    """Log the encoder as a model of the run: plain tensors, their spec, and the code that reads them."""
    import mlflow  # noqa: PLC0415

    s = spec["image_size"]
    example = torch.zeros(2, 3, s, s, dtype=torch.uint8)
    dim = restore(spec, weights)(example).shape[1]
    with tempfile.TemporaryDirectory() as scratch, mlflow.start_run(run_id=run_id):
        folder = Path(scratch, "encoder")
        saved.save(folder, spec, weights)
        return mlflow.pyfunc.log_model(
            name="encoder",
            loader_module="models.saved",
            data_path=str(folder),
            code_paths=["models"],
            signature=receipts.signature(s, dim),
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", "safetensors", "numpy"],
        )


if __name__ == "__main__":
    stage.enter("register", main, __doc__, METHODS)
