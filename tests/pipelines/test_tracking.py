"""MLflow as a sink: nothing twice, made once, and never in training's way."""

import json
import sqlite3
from pathlib import Path

import pytest

from pipelines import tracking
from tests.pipelines.project import Project


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new store, and the settings of MLflow given back afterwards."""
    monkeypatch.chdir(tmp_path)
    for name, value in tracking.QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def test_a_history_is_replayed_once(store: Path) -> None:
    client = tracking.connect()
    run = tracking.ensure_run(client, "digits", "simclr", None)
    rows = [{"step": step, "loss": 1 / step, "lr": step / 100} for step in (10, 20, 30, 40)]
    history = store / "history.jsonl"
    history.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tracking.log_rows(client, run, rows[:2])
    for _ in range(2):
        tracking.replay(client, run, history)
        for name in ("loss", "lr"):
            logged = [(m.step, m.value) for m in client.get_metric_history(run, name)]
            assert logged == [(row["step"], row[name]) for row in rows]
    assert tracking.ensure_run(client, "digits", "simclr", run) == run
    assert tracking.ensure_run(client, "digits", "simclr", "0" * 32) != run


def test_a_resumed_training_goes_on_in_its_run(store: Path) -> None:
    remembered = store / "run_id"
    first = tracking.LiveRun("digits", "mae", remembered)
    for step in (10, 20):
        first.log({"step": step, "loss": 0.5})
    first.close()
    second = tracking.LiveRun("digits", "mae", remembered)
    for step in (20, 30):  # 20 is done again after a checkpoint at 15
        second.log({"step": step, "loss": 0.25})
    second.close()
    assert first.id == second.id == remembered.read_text()
    logged = tracking.connect().get_metric_history(first.id, "loss")
    assert [(m.step, m.value) for m in logged] == [(10, 0.5), (20, 0.5), (30, 0.25)]


def test_a_store_that_is_down_does_not_stop_training(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    live = tracking.LiveRun("digits", "mae", store / "run_id")
    live.log({"step": 10, "loss": 0.5})
    live.close()
    said = capsys.readouterr().err
    assert said.startswith("MLflow does not take the curves now, training goes on: ")
    assert said.count("\n") == 1
    assert live.id == ""


def test_a_server_that_is_down_does_not_delay_training(project: Project) -> None:
    program = (
        "import os, time; os.environ['MLFLOW_TRACKING_URI'] = 'http://127.0.0.1:9'; import mlflow; "
        "from pathlib import Path; from pipelines.tracking import LiveRun; start = time.monotonic(); "
        "LiveRun('digits', 'mae', Path('run_id')); print(time.monotonic() - start)"
    )
    assert float(project.run("-c", program).stdout) < 30


def test_four_processes_at_once_make_one_store(project: Project) -> None:
    program = "from pipelines import tracking; print(tracking.experiment(tracking.connect(), 'digits'))"
    processes = [project.start("-c", program) for _ in range(4)]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert len({out for out, _ in said}) == 1
    with sqlite3.connect(project.root / "mlflow.db") as database:
        assert database.execute("select count(*) from experiments where name = 'digits'").fetchone() == (1,)


def test_nested_params_become_dotted_names() -> None:
    assert tracking.flat({"mae": {"optim": {"lr": 0.1}, "area": (0.2, 1.0)}}) == {
        "mae.optim.lr": "0.1",
        "mae.area": "(0.2, 1.0)",
    }
