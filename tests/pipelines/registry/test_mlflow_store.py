"""Where MLflow's store is, and the one sentence when it is not there or refuses."""

from pathlib import Path

import pytest

from pipelines.project.stage import StageError
from pipelines.registry import mlflow_store
from tests.pipelines.small_project import Project


def test_a_relative_sqlite_file_is_the_projects_own_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert mlflow_store.address() == mlflow_store.own_store()


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:"])
def test_a_store_that_forgets_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StageError, match=f"^MLFLOW_TRACKING_URI is {uri}, a store in memory"):
        mlflow_store.connect()


WRONG = [
    "ftp://somewhere",
    "mlruns",
    "sqlite:////proc/nowhere/mlflow.db",
    "http://127.0.0.1:9",
    "postgresql://user:geheim@localhost/x",
    "nonsense://",
    "http://user:geheim@127.0.0.1:9",
]


@pytest.mark.parametrize("uri", WRONG)
def test_a_wrong_address_is_one_sentence_without_its_password(project: Project, uri: str) -> None:
    program = (
        f"import os; os.environ['MLFLOW_TRACKING_URI'] = {uri!r}; os.environ['MLFLOW_HTTP_REQUEST_MAX_RETRIES'] = '0'; "
    )
    program += "from pipelines.project import stage; from pipelines.registry import mlflow_store; "
    program += "stage.run('register@mae', mlflow_store.connect)"
    done = project.run("-c", program)
    assert done.returncode == 1
    assert done.stderr.startswith("register@mae: MLflow's store does not answer: MLFLOW_TRACKING_URI is ")
    assert done.stderr.count("\n") == 1
    assert "geheim" not in done.stderr


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:p@ss:w/rd@host:5000 said no", "http://***@host:5000 said no"),
        ("https://TOKEN@host/path", "https://***@host/path"),
        ("(postgresql://u:p%40ss@host/db)", "(postgresql://***@host/db)"),
        ("postgresql://host/db?password=geheim&x=1", "postgresql://host/db?password=***&x=1"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
        ("http://host:5000/a", "http://host:5000/a"),
    ],
)
def test_no_password_is_printed(text: str, shown: str) -> None:
    assert mlflow_store.masked(text) == shown


def test_what_mlflow_refuses_is_one_sentence(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = mlflow_store.connect()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:geheim@127.0.0.1:9")
    sentence = r"^MLflow's store http://\*\*\*@127\.0\.0\.1:9 refused \(Run .* not found\)\. Open it with"
    with pytest.raises(StageError, match=sentence), mlflow_store.refusals():
        client.get_run("0" * 32)


@pytest.mark.parametrize("address", ["models:/digits-encoder/99", "models:/nobody@champion"])
def test_an_encoder_that_is_not_in_the_store_is_one_sentence(store: Path, address: str) -> None:
    mlflow_store.connect()
    with pytest.raises(StageError, match=f"^The encoder {address} cannot be read from MLflow's store"):
        mlflow_store.download(address)


def test_asking_for_an_encoder_elsewhere_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        StageError, match=r"^The encoder models:/a/1 is wanted, but .*mlflow\.db is missing\. Run this in the "
    ):
        mlflow_store.download("models:/a/1")
    assert list(tmp_path.iterdir()) == []
