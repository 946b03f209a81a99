"""The registry goes by digests: no number of another store is believed, and what is gone is made again."""

import hashlib
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from models import methods
from pipelines import archive, export, promote, register
from pipelines.evaluation import scores
from pipelines.evaluation.scores import Score
from pipelines.project import config, stage
from pipelines.project.stage import StageError
from pipelines.registry import mlflow_store, receipts
from tests.models.conftest import MEAN, STD
from tests.pipelines.small_project import METHODS, Project

MODEL, TWIN = "digits-encoder", "digits-encoder-onnx"
HEALTHY = {"name": "healthy", "because": "", "change": ""}
VAL = {"simclr": 99.0, "mae": 40.0, "dino": 60.0}


def use(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in a project, with its own store."""
    monkeypatch.chdir(root)
    for name, value in mlflow_store.QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store.own_store())


def train(name: str) -> None:
    """All that the stages before registration leave behind, without the training: an encoder as it is born."""
    c, prepared = config.load(), json.loads((stage.PREPARED / "manifest.json").read_text())
    encoder = methods.build(name, c.method(name), 16, MEAN, STD, seed=0).encoder
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
        scores.write(folder / table, [Score(name, how, "1", 0, 0, VAL[name], VAL[name])])  # type: ignore[arg-type]
    figures = {name: {"val_linear_all": VAL[name], "val_linear_1": VAL[name]}}
    for file, said in {"metrics": figures, "finetune": {name: {"val_finetune_1": 0.0}}, "diagnosis": HEALTHY}.items():
        (folder / f"{file}.json").write_text(json.dumps(said))


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
    for path in Path("artifacts").glob("*/encoder.mar"):
        with zipfile.ZipFile(path) as archived:
            found[path.parent.name] = json.loads(archived.read("MAR-INF/MANIFEST.json"))["model"]["modelVersion"]
    return found


@pytest.fixture(scope="module")
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


def pull(project: Path, folder: Path) -> Path:
    """What `git clone` and `dvc pull` bring: all files but MLflow's."""
    return Path(shutil.copytree(project, folder / "project", ignore=shutil.ignore_patterns("mlruns", "mlflow.db")))


def assert_aliases_hold() -> None:
    """Both models' aliases name what the files here hold, by digest; promoted.json names the same versions."""
    client = mlflow_store.connect()
    said = json.loads(stage.PROMOTED.read_text())
    numbers = {model["method"]: model["version"] for model in said["models"]}
    for alias in (*METHODS, "champion"):
        name = said["champion"] if alias == "champion" else alias
        checkpoint = torch.load(stage.artifact(name, "checkpoint.pt"), weights_only=True)
        ours = client.get_model_version_by_alias(MODEL, alias)
        twin = client.get_model_version_by_alias(TWIN, alias)
        assert ours.tags["encoder_digest"] == receipts.encoder_digest(checkpoint["spec"], checkpoint["weights"])
        assert twin.tags["onnx_digest"] == hashlib.sha256(stage.artifact(name, "encoder.onnx").read_bytes()).hexdigest()
        assert str(ours.version) == numbers[name] == twin.tags["encoder_version"]
        assert receipts.is_whole(client, ours, receipts.ENCODER)
        assert receipts.is_whole(client, twin, receipts.GRAPH)
    assert said["champion"] == "simclr"


def assert_archives() -> None:
    assert archives() == {
        name: json.loads(stage.artifact(name, "version.json").read_text())["version"] for name in METHODS
    }


def versions(client: MlflowClient) -> int:
    return len(client.search_model_versions(f"name = '{MODEL}'"))


def test_receipts_of_another_store_are_not_believed(
    promoted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after `dvc exp run --temp`, whose workspace has a store of its own, and `dvc exp apply`."""
    use(pull(promoted, tmp_path), monkeypatch)
    client = mlflow_store.connect()
    receipts.settle(client)
    line(("dino", "mae", "simclr"))  # here DINO is version 1
    graph = stage.artifact("simclr", "encoder.onnx").read_bytes()
    for name in METHODS:
        for file in ("version.json", "parity.json", "encoder.mar"):
            shutil.copyfile(promoted / "artifacts" / name / file, stage.artifact(name, file))
    shutil.copyfile(promoted / "artifacts" / "promoted.json", stage.PROMOTED)
    capsys.readouterr()
    with pytest.raises(
        StageError, match=r"^artifacts/simclr/version\.json, artifacts/simclr/parity\.json named versions"
    ):
        export.main("simclr")
    assert stage.artifact("simclr", "encoder.onnx").read_bytes() == graph
    with pytest.raises(StageError, match="Run the same command again: the encoders are registered here"):
        promote.main()
    receipts.settle(client)
    assert "artifacts/promoted.json said. These files are removed" in capsys.readouterr().err
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
    receipts.settle(client)
    line()
    assert_aliases_hold()
    assert versions(client) == 6
    assert_archives()
    assert not (old / "mlruns").exists()
    where = client.get_experiment_by_name("digits")
    assert Path(where.artifact_location).is_relative_to(new)
    assert "it is now called 'digits, until the project moved (1)'" in capsys.readouterr().err
    receipts.settle(client)
    assert capsys.readouterr().err == ""
    assert stage.PROMOTED.exists()


def other_champion(client: MlflowClient) -> None:
    client.set_registered_model_alias(MODEL, "champion", client.get_model_version_by_alias(MODEL, "dino").version)


def other_twin(client: MlflowClient) -> None:
    client.set_registered_model_alias(TWIN, "mae", client.get_model_version_by_alias(TWIN, "dino").version)


def no_alias(client: MlflowClient) -> None:
    client.delete_registered_model_alias(MODEL, "champion")


@pytest.mark.parametrize("change", [other_champion, other_twin, no_alias])
def test_aliases_that_were_moved_are_put_right(here: MlflowClient, change: Callable[[MlflowClient], None]) -> None:
    change(here)
    receipts.settle(here)
    assert_aliases_hold()
    assert all(stage.artifact(name, "version.json").exists() for name in METHODS)


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
        scores.write(stage.artifact(name, "scores.csv"), [Score(name, "linear", "1", 0, 0, val, val)])
    promote.main()
    assert not (workspace / "mlflow.db").exists()
    assert here.get_model_version_by_alias(MODEL, "champion").tags["method"] == "simclr"
    applied = stage.PROMOTED.read_text()
    monkeypatch.chdir(project)
    assert_aliases_hold()
    stage.PROMOTED.write_text(applied)
    receipts.settle(here)
    for model in (MODEL, TWIN):
        assert here.get_model_version_by_alias(model, "champion").tags["method"] == "mae"
    shutil.rmtree(project / ".dvc" / "tmp" / "exps")


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
    receipts.settle(mlflow_store.connect())
    line()
    assert_aliases_hold()
    assert_archives()


def test_a_damaged_receipt_is_made_again(here: MlflowClient) -> None:
    stage.artifact("mae", "version.json").write_text("{")
    stage.artifact("dino", "parity.json").write_text("[]")
    receipts.settle(here)
    line()
    assert_aliases_hold()


def test_dvc_makes_a_removed_receipt_again(here: MlflowClient) -> None:
    """It neither restores it from its cache nor calls the stage unchanged."""
    project = Project(Path.cwd())
    before = stage.artifact("simclr", "version.json").read_text()
    for _ in range(2):
        stage.artifact("simclr", "version.json").unlink()
        done = project.dvc("repro", "--single-item", "register@simclr")
        assert "registered digits-encoder version" in done.stdout, done.stderr
        assert stage.artifact("simclr", "version.json").read_text() == before
