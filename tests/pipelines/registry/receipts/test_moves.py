"""Files that come from another store, folder or workspace: no version number of theirs is believed."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines import export, promote
from pipelines.evaluation import scores
from pipelines.project import stage
from pipelines.project.stage import StageError
from pipelines.registry import mlflow_store, receipts
from tests.pipelines.evaluation.answers import score
from tests.pipelines.registry.receipts.encoders import MODEL, TWIN, assert_aliases_hold, assert_archives, line, use
from tests.pipelines.small_project import METHODS


def pull(project: Path, folder: Path) -> Path:
    """What `git clone` and `dvc pull` bring: all files but MLflow's."""
    return Path(shutil.copytree(project, folder / "project", ignore=shutil.ignore_patterns("mlruns", "mlflow.db")))


def versions(client: MlflowClient) -> int:
    return len(client.search_model_versions(f"name = '{MODEL}'"))


def test_receipts_of_another_store_are_not_believed(
    promoted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after `dvc exp run --temp`, whose workspace has a store of its own, and `dvc exp apply`."""
    use(pull(promoted, tmp_path), monkeypatch)
    client = mlflow_store.connect()
    receipts.reconcile(client)
    line(("dino", "mae", "simclr"))  # here DINO is version 1
    graph = stage.artifact("simclr", "encoder.onnx").read_bytes()
    for name in METHODS:
        for file in ("version.json", "parity.json", "encoder.mar"):
            shutil.copyfile(promoted / "artifacts" / "methods" / name / file, stage.artifact(name, file))
    shutil.copyfile(promoted / "artifacts" / "promoted.json", stage.PROMOTED)
    capsys.readouterr()
    with pytest.raises(
        StageError,
        match=r"^The files artifacts/methods/simclr/version\.json, artifacts/methods/simclr/parity\.json named ",
    ):
        export.main("simclr")
    assert stage.artifact("simclr", "encoder.onnx").read_bytes() == graph
    with pytest.raises(StageError, match="Run the same command again: it registers the encoders here"):
        promote.main()
    receipts.reconcile(client)
    assert "artifacts/promoted.json named. These files are removed" in capsys.readouterr().err
    line()
    assert_aliases_hold()
    assert_archives()
    assert versions(client) == 3  # found by their digests, not registered twice


def test_a_moved_project_registers_again_and_leaves_the_old_place_alone(
    here: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Path.cwd()
    new = Path(shutil.copytree(old, tmp_path / "a new place"))
    shutil.rmtree(old / "mlruns")  # the rest of the old place serves other tests
    use(new, monkeypatch)
    client = mlflow_store.connect()
    receipts.reconcile(client)
    line()
    assert_aliases_hold()
    assert versions(client) == 6
    assert_archives()
    assert not (old / "mlruns").exists()
    where = client.get_experiment_by_name("digits")
    assert Path(where.artifact_location).is_relative_to(new)
    assert "It is now called 'digits, until the project moved (1)'" in capsys.readouterr().err
    receipts.reconcile(client)
    assert capsys.readouterr().err == ""
    assert stage.PROMOTED.exists()


def test_an_experiment_in_a_temporary_workspace_uses_the_projects_store_and_moves_no_alias(
    here: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc exp run --temp` works below .dvc/tmp/exps; `dvc exp apply` brings its files, and the flow its aliases."""
    project = Path.cwd()
    workspace = project / ".dvc" / "tmp" / "exps" / "standalone" / "tmp1"
    workspace.parent.mkdir(parents=True)
    pull(project, tmp_path).rename(workspace)
    monkeypatch.chdir(workspace)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for name, val in (("simclr", 40.0), ("mae", 99.0)):
        scores.write(stage.artifact(name, "scores.csv"), [score(name, "linear", "1", 0, 0, val)])
    promote.main()
    assert not (workspace / "mlflow.db").exists()
    assert here.get_model_version_by_alias(MODEL, "champion").tags["method"] == "simclr"
    applied = stage.PROMOTED.read_text()
    monkeypatch.chdir(project)
    assert_aliases_hold()
    stage.PROMOTED.write_text(applied)
    receipts.reconcile(here)
    for model in (MODEL, TWIN):
        assert here.get_model_version_by_alias(model, "champion").tags["method"] == "mae"
    shutil.rmtree(project / ".dvc" / "tmp" / "exps")
