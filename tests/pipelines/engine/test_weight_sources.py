"""Where encoder.init may take weights from: files, folders and the registry, and what is refused."""

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models import saved
from models.encoders.vit import ViTParams
from models.encoders.weights import restore
from pipelines.project import ConfigError, config
from tests.pipelines.engine.weights import bare
from tests.pipelines.small_project import Project
from tests.pipelines.test_pretrain import BARE

STILL = {"mae.optim.lr": 1e-30, "mae.optim.weight_decay": 0.0, "mae.epochs": 1}  # a step that changes no weight


@pytest.mark.parametrize(
    "init", ["", " ", "models:/a", "models:/a/latest", "models:/a@", "models:/a@b@c", "https://a/b"]
)
def test_an_address_that_is_none_is_refused_with_the_params(init: str, project: Project) -> None:
    params = project.root / "params.yaml"
    project.set({"mae.encoder.init": init})
    with pytest.raises(
        ConfigError, match=rf"^Parameter mae\.encoder\.init is {init!r}\. Allowed: a file or a folder here, models:/"
    ):
        config.load(params)


@pytest.mark.parametrize(
    "init", ["weights/a.pth", "artifacts/methods/mae/checkpoint.pt", "models:/a-b.c/3", "models:/a@champion"]
)
def test_files_and_addresses_are_taken(init: str, project: Project) -> None:
    project.set({"mae.encoder.init": init})
    assert config.load(project.root / "params.yaml").method("mae").encoder.init == init


def damaged(path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(9)}}, path)
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (None, "The weights weights/a.pth are missing or cannot be read. Set encoder.init to a file of weights, "),
        (damaged, "Parameter mae.encoder.init: The file weights/a.pth is damaged, or no checkpoint"),
        (
            lambda path: torch.save({"model": bare(ViTParams("vit_nano", 4)) | {"extra": torch.zeros(1)}}, path),
            "Parameter mae.encoder.init: The weights do not fit the encoder: missing none; unknown extra. ",
        ),
        (
            lambda path: torch.save(bare(ViTParams("vit_nano", 8)), path),
            "Parameter mae.encoder.init: The weights do not fit the encoder: patch_embed.proj.weight is (64, 3, 8, 8) ",
        ),
    ],
)  # fmt: skip
def test_a_bad_file_ends_the_stage_with_one_sentence(project: Project, write: Any, sentence: str) -> None:
    project.set({"mae.encoder.init": "weights/a.pth"})
    (project.root / "weights").mkdir()
    if write:
        write(project.root / "weights" / "a.pth")
    done = project.run("-c", BARE, "mae")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"pretrain@mae: {sentence}")
    assert "Traceback" not in done.stderr
    assert not project.artifact("mae", "checkpoint.pt").exists()


def test_an_encoder_that_is_built_otherwise_is_named_as_such(project: Project) -> None:
    """Not by the sixty keys that its weights lack."""
    params = ViTParams("vit_nano", 8, pool="mean")
    saved.save(project.root / "other", {"encoder": asdict(params), "image_size": 16}, bare(params))
    project.set({"simclr.encoder.init": "other"})
    done = project.run("-c", BARE, "simclr")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "pretrain@simclr: Parameter simclr.encoder.init: The weights other are of the encoder {arch: vit_nano, "
    )
    assert "but simclr.encoder is {arch: resnet10, width: 8, stem: small/2, " in done.stderr.splitlines()[-1]


def trained(project: Project) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(project.artifact("mae", "checkpoint.pt"), weights_only=True)
    return checkpoint


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_pretraining_goes_on_from_a_checkpoint_of_ours(project: Project) -> None:
    project.set({"mae.epochs": 2})
    assert project.run("-c", BARE, "mae").returncode == 0
    first = trained(project)
    (project.root / "weights").mkdir()
    project.artifact("mae", "checkpoint.pt").rename(project.root / "weights" / "mae.pt")
    project.set(STILL | {"mae.encoder.init": "weights/mae.pt", "seed": 1})
    done = project.run("-c", BARE, "mae")
    assert done.returncode == 0, done.stderr
    assert (
        "mae.encoder.init: 54 tensors from weights/mae.pt (ours); left aside: none; normalize: their own" in done.stdout
    )
    second = trained(project)
    assert_equal(first["weights"], second["weights"])
    digest = hashlib.sha256((project.root / "weights" / "mae.pt").read_bytes()).hexdigest()
    assert second["spec"]["init_digest"] == digest
    assert first["spec"]["init_digest"] is None
    again = restore(second["spec"], second["weights"])
    assert_equal(dict(again.state_dict()), second["weights"])


REGISTERED = """
from pipelines import pretrain, register
from pipelines.engine import initial_weights
from pipelines.project import stage
from pipelines.registry import mlflow_store
address = "models:/digits-encoder@champion"
try:
    initial_weights.download(address)
except stage.StageError as error:
    print(error)
client = mlflow_store.connect()
client.set_registered_model_alias("digits-encoder", "champion", "1")
pretrain.main("mae")
register.main("mae")
version = client.get_model_version("digits-encoder", "2")
for tags in (version.tags, client.get_run(version.run_id).data.tags):
    print(tags["init"], tags["init_digest"])
"""


def test_pretraining_goes_on_from_the_registry_and_says_so_there(project: Project) -> None:
    project.set({"mae.epochs": 2})
    assert project.run("-c", BARE, "mae").returncode == 0
    first = trained(project)
    project.artifact("mae", "metrics.json").write_text(json.dumps({"mae": {"linear_all": 50.0}}))
    project.artifact("mae", "finetune.json").write_text("{}")
    project.artifact("mae", "diagnosis.json").write_text(json.dumps({"name": "healthy", "because": "", "change": ""}))
    assert project.run("-m", "pipelines.register", "mae").returncode == 0
    project.set(STILL | {"mae.encoder.init": "models:/digits-encoder@champion", "seed": 1})
    done = project.run("-c", REGISTERED)
    assert done.returncode == 0, done.stderr
    missing, started, *_, version, run = done.stdout.splitlines()
    assert missing.startswith("The encoder models:/digits-encoder@champion cannot be read from MLflow's store (")
    assert started.startswith("mae.encoder.init: 54 tensors from models:/digits-encoder@champion (ours); ")
    second = trained(project)
    assert_equal(first["weights"], second["weights"])
    digest = second["spec"]["init_digest"]
    assert version == run == f"models:/digits-encoder@champion {digest}"
    assert re.fullmatch("[0-9a-f]{64}", digest)
