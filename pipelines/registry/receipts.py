"""Versions in MLflow's registry, identified by the digest of their contents.

A version number has a meaning in one store only. version.json and parity.json are receipts: they record the numbers
that a store gave. After `dvc pull`, `dvc exp apply`, a move of the project or a deletion in MLflow, a number may name
another encoder in this store, or none. So a receipt is used only after the store has confirmed it.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.encoders.weights import Spec
from pipelines.project import config, stage
from pipelines.project.stage import StageError
from pipelines.registry import mlflow_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}  # the second is for an alias that was never set


@dataclass(frozen=True)
class Kind:
    """A receipt's file and its keys; `content` is the file that a whole version has in the store."""

    receipt: str
    model: str
    version: str
    digest: str  # also the tag of the version
    content: str


ENCODER = Kind("version.json", "model", "version", "encoder_digest", "data/encoder/weights.safetensors")
GRAPH = Kind("parity.json", "onnx_model", "onnx_version", "onnx_digest", "model.onnx")


def encoder_digest(spec: Spec, weights: dict[str, torch.Tensor]) -> str:
    """SHA-256 over the spec and every tensor's name and bytes."""
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode())
    for key in sorted(weights):
        digest.update(key.encode())
        digest.update(weights[key].numpy().tobytes())
    return digest.hexdigest()


def signature(size: int, dim: int) -> Any:
    """uint8 (batch, 3, size, size) → float32 (batch, dim)."""
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import Schema, TensorSpec  # noqa: PLC0415

    return ModelSignature(
        Schema([TensorSpec(np.dtype(np.uint8), (-1, 3, size, size))]),
        Schema([TensorSpec(np.dtype(np.float32), (-1, dim))]),
    )


def find(client: "MlflowClient", model: str, kind: Kind, digest: str) -> Any | None:
    """The newest complete version of a model with this digest; None when there is none."""
    found = client.search_model_versions(f"name = '{model}' and tags.{kind.digest} = '{digest}'")
    newest_first = sorted(found, key=lambda version: int(version.version), reverse=True)
    return next((version for version in newest_first if is_whole(client, version, kind)), None)


def is_whole(client: "MlflowClient", version: Any, kind: Kind) -> bool:
    """Whether the files of a version are in the store, and its run has not been deleted."""
    import mlflow  # noqa: PLC0415

    folder, _, name = f"models:/{version.name}/{version.version}/{kind.content}".rpartition("/")
    run = get(lambda: client.get_run(version.run_id))
    files = get(lambda: mlflow.artifacts.list_artifacts(artifact_uri=folder))
    active = run is not None and run.info.lifecycle_stage == "active"
    return active and name in {Path(file.path).name for file in files or ()}


def register(client: "MlflowClient", model: str, logged: Any, tags: Mapping[str, str]) -> Any:
    """Register a logged model as a new version of a model, which is created if it is missing."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    with mlflow_store.locked():
        try:
            client.get_registered_model(model)
        except MlflowException:
            client.create_registered_model(model)
    return client.create_model_version(
        model, logged.model_uri, logged.run_id, tags=dict(tags), model_id=logged.model_id
    )


def void(client: "MlflowClient", methods: Collection[str]) -> list[Path]:
    """Remove the receipts of these methods that the store does not confirm, and return their paths.

    DVC then runs the stages that write them. These stages do not train.
    """
    removed = []
    for name in methods:
        for kind in (ENCODER, GRAPH):
            path = stage.artifact(name, kind.receipt)
            if path.exists() and not confirms(client, read(path), kind):
                path.unlink()
                removed.append(path)
    return removed


def check(client: "MlflowClient", methods: Collection[str]) -> None:
    """Raises StageError when the store does not confirm a receipt of these methods; the receipt is removed."""
    if removed := void(client, methods):
        raise StageError(
            f"The files {listed(removed)} named versions that MLflow's store here does not have. They are removed. "
            "Run the same command again: it registers the encoders here and trains nothing."
        )


@mlflow_store.refusals()
def reconcile(client: "MlflowClient") -> None:
    """Remove the receipts that the store does not confirm, and what was promoted by them. Correct the aliases."""
    methods = config.load().methods
    removed = void(client, methods)
    incomplete = not all(stage.artifact(m, kind.receipt).exists() for m in methods for kind in (ENCODER, GRAPH))
    if stage.PROMOTED.exists() and incomplete:
        stage.PROMOTED.unlink()
        removed.append(stage.PROMOTED)
    elif stage.PROMOTED.exists():
        for moved in point(client, read(stage.PROMOTED).get("champion", "")):
            print(f"The alias {moved} in MLflow is moved to the version that {stage.PROMOTED} names.", file=sys.stderr)
    if removed:
        print(
            f"MLflow's store here does not have the versions that {listed(removed)} named. These files are removed. "
            "The stages that write them run again: they register and promote here, and train nothing.",
            file=sys.stderr,
        )


def point(client: "MlflowClient", champion: str) -> list[str]:
    """Set every method's alias, and the champion's, to the versions that the receipts name; return those that moved."""
    moved = []
    for name in config.load().methods:
        for kind in (ENCODER, GRAPH):
            receipt = read(stage.artifact(name, kind.receipt))
            model, number = receipt[kind.model], receipt[kind.version]
            for alias in (name, "champion") if name == champion else (name,):
                before = get(partial(client.get_model_version_by_alias, model, alias))
                if before is None or str(before.version) != number:
                    client.set_registered_model_alias(model, alias, number)
                    moved.append(f"{model}@{alias}")
    return moved


def confirms(client: "MlflowClient", receipt: Mapping[str, Any], kind: Kind) -> bool:
    """Whether the version that a receipt names is in the store, complete, with the receipt's digest."""
    version = get(lambda: client.get_model_version(receipt[kind.model], receipt[kind.version]))
    if version is None or version.tags.get(kind.digest) != receipt[kind.digest]:
        return False
    return is_whole(client, version, kind)


def get(ask: Callable[[], Any]) -> Any | None:
    """The store's answer, or None when it knows no such version or the receipt lacks a key."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        return ask()
    except KeyError:
        return None
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def read(path: Path) -> dict[str, Any]:
    """A receipt; empty when it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def listed(paths: Collection[Path]) -> str:
    return ", ".join(map(str, paths))
