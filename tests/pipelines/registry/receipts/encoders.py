"""Three registered encoders: how they are registered again, and what must hold of them."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
import torch

from pipelines import archive, export, promote, register
from pipelines.project import stage
from pipelines.registry import mlflow_store, receipts
from tests.pipelines.small_project import METHODS

MODEL, TWIN = "digits-encoder", "digits-encoder-onnx"


def use(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in a project, with its own store."""
    monkeypatch.chdir(root)
    for name, value in mlflow_store.QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store.own_store())


def line(order: tuple[str, ...] = METHODS) -> None:
    """What `dvc repro` would run where a figure has changed: register, what stands on another receipt, promote."""
    for name in order:
        receipt, exported = stage.artifact(name, "version.json"), stage.artifact(name, "parity.json").exists()
        archived = archives().get(name)
        register.main(name)
        if not exported or archived != json.loads(receipt.read_text())["version"]:
            export.main(name)
            archive.main(name)
    promote.main()


def archives() -> dict[str, str]:
    """Method → the version inside its archive."""
    found = {}
    for path in Path("artifacts/methods").glob("*/encoder.mar"):
        with zipfile.ZipFile(path) as archived:
            found[path.parent.name] = json.loads(archived.read("MAR-INF/MANIFEST.json"))["model"]["modelVersion"]
    return found


def assert_aliases_hold() -> None:
    """Both models' aliases name what the files here hold, by digest; promoted.json names the same versions."""
    client = mlflow_store.connect()
    promoted = json.loads(stage.PROMOTED.read_text())
    numbers = {model["method"]: model["version"] for model in promoted["models"]}
    for alias in (*METHODS, "champion"):
        name = promoted["champion"] if alias == "champion" else alias
        checkpoint = torch.load(stage.artifact(name, "checkpoint.pt"), weights_only=True)
        ours = client.get_model_version_by_alias(MODEL, alias)
        twin = client.get_model_version_by_alias(TWIN, alias)
        assert ours.tags["encoder_digest"] == receipts.encoder_digest(checkpoint["spec"], checkpoint["weights"])
        assert twin.tags["onnx_digest"] == hashlib.sha256(stage.artifact(name, "encoder.onnx").read_bytes()).hexdigest()
        assert str(ours.version) == numbers[name] == twin.tags["encoder_version"]
        assert receipts.is_whole(client, ours, receipts.ENCODER)
        assert receipts.is_whole(client, twin, receipts.GRAPH)
    assert promoted["champion"] == "simclr"


def assert_archives() -> None:
    assert archives() == {
        name: json.loads(stage.artifact(name, "version.json").read_text())["version"] for name in METHODS
    }
