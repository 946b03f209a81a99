"""What was moved, deleted, renamed or damaged in MLflow or among the receipts is made again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.project import stage
from pipelines.registry import mlflow_store, receipts
from tests.pipelines.registry.receipts.encoders import MODEL, TWIN, assert_aliases_hold, assert_archives, line
from tests.pipelines.small_project import METHODS, Project


def other_champion(client: MlflowClient) -> None:
    client.set_registered_model_alias(MODEL, "champion", client.get_model_version_by_alias(MODEL, "dino").version)


def other_twin(client: MlflowClient) -> None:
    client.set_registered_model_alias(TWIN, "mae", client.get_model_version_by_alias(TWIN, "dino").version)


def no_alias(client: MlflowClient) -> None:
    client.delete_registered_model_alias(MODEL, "champion")


@pytest.mark.parametrize("change", [other_champion, other_twin, no_alias])
def test_aliases_that_were_moved_are_put_right(here: MlflowClient, change: Callable[[MlflowClient], None]) -> None:
    change(here)
    receipts.reconcile(here)
    assert_aliases_hold()
    assert all(stage.artifact(name, "version.json").exists() for name in METHODS)


def deleted_version(client: MlflowClient) -> None:
    client.delete_model_version(MODEL, client.get_model_version_by_alias(MODEL, "simclr").version)


def deleted_twin(client: MlflowClient) -> None:
    client.delete_model_version(TWIN, client.get_model_version_by_alias(TWIN, "mae").version)


def deleted_model(client: MlflowClient) -> None:
    client.delete_registered_model(MODEL)


def renamed_model(client: MlflowClient) -> None:
    client.rename_registered_model(MODEL, "another")


def deleted_run(client: MlflowClient) -> None:
    client.delete_run(client.get_model_version_by_alias(MODEL, "simclr").run_id)


def deleted_experiment(client: MlflowClient) -> None:
    client.delete_experiment(mlflow_store.experiment(client, "digits"))


def renamed_experiment(client: MlflowClient) -> None:
    client.rename_experiment(mlflow_store.experiment(client, "digits"), "another")


def deleted_files(client: MlflowClient) -> None:
    shutil.rmtree("mlruns")


EVENTS = [
    deleted_version,
    deleted_twin,
    deleted_model,
    renamed_model,
    deleted_run,
    deleted_experiment,
    renamed_experiment,
    deleted_files,
]


@pytest.mark.parametrize("event", EVENTS)
def test_what_was_deleted_or_renamed_in_mlflow_is_made_again(
    here: MlflowClient, event: Callable[[MlflowClient], None]
) -> None:
    event(here)
    receipts.reconcile(mlflow_store.connect())
    line()
    assert_aliases_hold()
    assert_archives()


def test_a_damaged_receipt_is_made_again(here: MlflowClient) -> None:
    stage.artifact("mae", "version.json").write_text("{")
    stage.artifact("dino", "parity.json").write_text("[]")
    receipts.reconcile(here)
    line()
    assert_aliases_hold()


def test_dvc_makes_a_removed_receipt_again(here: MlflowClient) -> None:
    """It neither restores it from its cache nor calls the stage unchanged."""
    project = Project(Path.cwd())
    before = stage.artifact("simclr", "version.json").read_text()
    assert project.dvc("repro", "--single-item", "settings").returncode == 0
    for _ in range(2):
        stage.artifact("simclr", "version.json").unlink()
        done = project.dvc("repro", "--single-item", "register@simclr")
        assert "Registered digits-encoder version" in done.stdout, done.stderr
        assert stage.artifact("simclr", "version.json").read_text() == before
