"""MLflow as a sink: nothing is logged twice, one store is made, and training never waits for it."""

import json
import shutil
import sqlite3
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipelines.project import params
from pipelines.registry import mlflow_store, runs
from pipelines.registry.live_curves import LiveRun
from tests.pipelines.registry.history import write_history
from tests.pipelines.small_project import Project


def test_a_history_is_replayed_once(store: Path) -> None:
    client = mlflow_store.connect()
    history = store / "history.jsonl"
    run = runs.ensure_run(client, "digits", "simclr", None, history)
    rows = write_history(history, (10, 20, 30, 40))
    runs.log_rows(client, run, rows[1:3])  # the store was down before and after
    for _ in range(2):
        runs.replay(client, run, history)
        for name in ("loss", "lr"):
            logged = sorted((m.step, m.value) for m in client.get_metric_history(run, name))
            assert logged == [(row["step"], row[name]) for row in rows]
    assert runs.ensure_run(client, "digits", "simclr", run, history) == run
    assert runs.ensure_run(client, "digits", "simclr", "0" * 32, history) == run  # by the training's digest
    write_history(history, (10, 20), speed=101.0)
    assert runs.ensure_run(client, "digits", "simclr", "0" * 32, history) != run
    client.delete_run(run)
    assert runs.ensure_run(client, "digits", "simclr", run, store / "none.jsonl") != run


def test_a_resumed_training_goes_on_in_its_run(store: Path) -> None:
    remembered = store / "run_id"
    first = LiveRun("digits", "mae", remembered)
    for step in (10, 20):
        first.log({"step": step, "loss": 0.5})
    first.close()
    second = LiveRun("digits", "mae", remembered)
    for step in (20, 30):  # 20 is done again after a checkpoint at 15
        second.log({"step": step, "loss": 0.25})
    second.close()
    assert first.id == second.id == remembered.read_text()
    logged = mlflow_store.connect().get_metric_history(first.id, "loss")
    assert [(m.step, m.value) for m in logged] == [(10, 0.5), (20, 0.5), (30, 0.25)]


def test_a_store_that_is_down_does_not_stop_training(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    live = LiveRun("digits", "mae", store / "run_id")
    live.log({"step": 10, "loss": 0.5})
    live.close()
    printed = capsys.readouterr().err
    assert printed.startswith("Warning: MLflow does not take the curves (")
    assert printed.count("\n") == 1
    assert live.id == ""


def test_a_server_that_is_down_does_not_delay_training(project: Project) -> None:
    program = (
        "import os, time; os.environ['MLFLOW_TRACKING_URI'] = 'http://127.0.0.1:9'; import mlflow; "
        "from pathlib import Path; from pipelines.registry.live_curves import LiveRun; start = time.monotonic(); "
        "LiveRun('digits', 'mae', Path('run_id')); print(time.monotonic() - start)"
    )
    assert float(project.run("-c", program).stdout) < 30


def test_four_processes_at_once_make_one_store(project: Project) -> None:
    program = (
        "from pipelines.registry import mlflow_store; print(mlflow_store.experiment(mlflow_store.connect(), 'digits'))"
    )
    processes = [project.start("-c", program) for _ in range(4)]
    printed = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, printed
    assert len({out for out, _ in printed}) == 1
    with sqlite3.connect(project.root / "mlflow.db") as database:
        assert database.execute("select count(*) from experiments where name = 'digits'").fetchone() == (1,)


def test_nested_params_become_dotted_names() -> None:
    assert params.flat({"mae": {"optim": {"lr": 0.1}, "area": (0.2, 1.0)}}) == {
        "mae.optim.lr": "0.1",
        "mae.area": "(0.2, 1.0)",
    }


def packages_of(*names: str) -> set[str]:
    """These distributions and all that they require."""
    found: set[str] = set()
    wanted = [Requirement(name) for name in names]
    while wanted:
        requirement = wanted.pop()
        name = requirement.name.lower().replace("_", "-")
        if name not in found and (not requirement.marker or requirement.marker.evaluate({"extra": ""})):
            found.add(name)
            wanted += map(Requirement, metadata.requires(name) or [])
    return found


BARE = """
import runpy, sys
from importlib.machinery import PathFinder

class Present:
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in absent else PathFinder.find_spec(name, path, target)

absent = set(sys.argv.pop().split())
sys.meta_path[sys.meta_path.index(PathFinder)] = Present
runpy.run_module("pipelines.pretrain", run_name="__main__", alter_sys=True)
"""


def test_a_training_on_a_bare_machine_comes_back(project: Project, tmp_path: Path) -> None:
    """There are torch, numpy and PyYAML, the sources and the prepared images; here DVC and MLflow take it over."""
    there = Project(tmp_path / "there")
    for name in ("data", "models", "pipelines", "serving"):
        shutil.copytree(project.root / name, there.root / name, ignore=shutil.ignore_patterns("raw"))
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(project.root / name, there.root / name)
    present = packages_of("torch", "numpy", "PyYAML") | {"encoder-foundry"}
    absent = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not present & {owner.lower().replace("_", "-") for owner in owners}
    ]
    assert {"PIL", "mlflow", "sklearn", "tqdm"} <= set(absent)
    trained = there.run("-c", BARE, "simclr", " ".join(absent))
    assert trained.returncode == 0, trained.stderr
    assert "Traceback" not in trained.stderr

    shutil.copytree(there.root / "artifacts/methods/simclr", project.root / "artifacts/methods/simclr")
    assert project.dvc("repro", "--single-item", "settings").returncode == 0
    for stage_name in ("download@digits", "prepare", "pretrain@simclr"):
        committed = project.dvc("commit", "--force", stage_name)
        assert committed.returncode == 0, committed.stderr
    for _ in range(2):
        synced = project.run("-m", "pipelines.registry.sync")
        assert synced.returncode == 0, synced.stderr
    done = project.dvc("repro", "register@simclr")
    assert done.returncode == 0, done.stderr
    assert "Stage 'pretrain@simclr' didn't change, skipping" in done.stdout
    receipt = json.loads(project.artifact("simclr", "version.json").read_text())
    assert synced.stdout == f"simclr: 0 rows added to run {receipt['run_id']}\n"
    again = project.run("-m", "pipelines.registry.sync")
    assert again.stdout == f"simclr: registered already, version 1, run {receipt['run_id']}\n"
    with sqlite3.connect(project.root / "mlflow.db") as database:
        assert database.execute("select count(*) from runs where name = 'simclr'").fetchone() == (1,)
