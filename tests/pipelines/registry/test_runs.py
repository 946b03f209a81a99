"""MLflow as a sink: nothing twice, made once, and never in training's way."""

import json
import shutil
import sqlite3
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from packaging.requirements import Requirement

from pipelines.project import params, stage
from pipelines.project.stage import StageError
from pipelines.registry import mlflow_store, receipts, runs, sync
from pipelines.registry.live_curves import LiveRun
from tests.pipelines.small_project import ROOT, Project


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


def write_history(path: Path, steps: Iterable[int], speed: float = 100.0) -> list[dict[str, float]]:
    rows = [{"step": step, "loss": 1 / step, "lr": step / 100, "images_per_second": speed} for step in steps]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


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
    said = capsys.readouterr().err
    assert said.startswith("MLflow does not take the curves now, training goes on: ")
    assert said.count("\n") == 1
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
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert len({out for out, _ in said}) == 1
    with sqlite3.connect(project.root / "mlflow.db") as database:
        assert database.execute("select count(*) from experiments where name = 'digits'").fetchone() == (1,)


def test_nested_params_become_dotted_names() -> None:
    assert params.flat({"mae": {"optim": {"lr": 0.1}, "area": (0.2, 1.0)}}) == {
        "mae.optim.lr": "0.1",
        "mae.area": "(0.2, 1.0)",
    }


SPEC: dict[str, Any] = {"method": "simclr", "dataset": "digits"}
WEIGHTS = {"stem.weight": torch.arange(6.0)}
FINISHED, UNFINISHED = Path("artifacts/simclr"), Path(".scratch/pretrain/simclr")


def trained_elsewhere(run_id: str = "", steps: Iterable[int] = range(1, 251)) -> list[dict[str, float]]:
    rows = write_history(FINISHED / "history.jsonl", steps)
    torch.save({"spec": SPEC, "weights": WEIGHTS, "run_id": run_id}, FINISHED / "checkpoint.pt")
    return rows


def listed() -> list[Run]:
    client = MlflowClient()
    return list(client.search_runs([mlflow_store.experiment(client, "digits")]))


def curve(run: Run) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in MlflowClient().get_metric_history(run.info.run_id, "loss")]


@pytest.mark.parametrize("run_id", ["", "0" * 32])
def test_a_training_from_elsewhere_is_synced_once(store: Path, run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = trained_elsewhere(run_id)
    for added in (250, 0):
        sync.main()
        (run,) = listed()
        assert capsys.readouterr().out == f"simclr: {added} rows added to run {run.info.run_id}\n"
        assert curve(run) == [(row["step"], row["loss"]) for row in rows]
        assert (run.info.run_name, run.info.status, run.data.tags["method"]) == ("simclr", "FINISHED", "simclr")


@pytest.mark.parametrize("folder", [".scratch/pretrain/simclr", ".scratch/pretrain/simclr-0123456789abcdef"])
def test_an_unfinished_training_is_synced_and_ends_in_the_same_run(
    store: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    history = Path(folder, "history.jsonl")
    write_history(history, (1, 2))
    with history.open("a") as file:
        file.write('{"step": 3, "lo')  # it was being written when it was copied
    with stage.locked("pretrain@simclr"):
        sync.main()
    assert capsys.readouterr().out == "simclr, unfinished: it is training now, and is left alone\n"
    for _ in range(2):
        sync.main()
        (run,) = listed()
        assert (curve(run), run.info.status) == ([(1, 1.0), (2, 0.5)], "RUNNING")
    shutil.rmtree(history.parent)
    trained_elsewhere(steps=(1, 2, 3, 4))
    sync.main()
    (ended,) = listed()
    assert (ended.info.run_id, ended.info.status) == (run.info.run_id, "FINISHED")
    assert [step for step, _ in curve(ended)] == [1, 2, 3, 4]


def test_a_synced_training_that_goes_on_here_has_one_run(store: Path) -> None:
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    write_history(UNFINISHED / "history.jsonl", (1, 2))
    sync.main()
    live = LiveRun("digits", "simclr", UNFINISHED / "run-0123456789abcdef")
    (last,) = write_history(UNFINISHED / "history.jsonl", (1, 2, 3))[2:]
    live.log(last)
    live.close()
    sync.main()  # what was trained before MLflow was there comes into the live run, too
    trained_elsewhere(live.id, (1, 2, 3))
    sync.main()
    (run,) = listed()
    assert run.info.run_id == live.id
    assert sorted(step for step, _ in curve(run)) == [1, 2, 3]


def test_another_training_in_the_same_folder_has_a_run_of_its_own(store: Path) -> None:
    """The history of other params still lies there when the run begins."""
    UNFINISHED.mkdir(parents=True)
    runs_of = []
    for speed in (100.0, 101.0):
        live = LiveRun("digits", "simclr", UNFINISHED / f"run-{speed:016.0f}")
        for row in write_history(UNFINISHED / "history.jsonl", (1, 2), speed):
            live.log(row)
        live.close()
        runs_of.append(live.id)
    assert {run.info.run_id for run in listed()} == set(runs_of)
    assert len(set(runs_of)) == 2


def test_what_is_registered_is_not_synced_again(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained_elsewhere()
    client = mlflow_store.connect()
    run = client.create_run(mlflow_store.experiment(client, "digits"))
    client.create_registered_model("digits-encoder")
    digest = receipts.encoder_digest(SPEC, WEIGHTS)
    source = Path(run.info.artifact_uri, "encoder")
    (source / "data" / "encoder").mkdir(parents=True)
    (source / "data" / "encoder" / "weights.safetensors").touch()
    client.create_model_version("digits-encoder", str(source), run.info.run_id, tags={"encoder_digest": digest})
    sync.main()
    assert capsys.readouterr().out == f"simclr: registered already, version 1, run {run.info.run_id}\n"
    assert len(listed()) == 1


def test_nothing_to_sync_and_what_did_not_arrive_whole_are_one_sentence(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sync.main()
    assert capsys.readouterr().out.startswith("nothing to sync: neither artifacts/<method>/checkpoint.pt")
    trained_elsewhere()
    whole = (FINISHED / "checkpoint.pt").read_bytes()
    for broken in (b"", whole[: len(whole) // 2], b"\0" * 99):
        (FINISHED / "checkpoint.pt").write_bytes(broken)
        with pytest.raises(StageError, match=r"^artifacts/simclr/checkpoint\.pt cannot be read .*; copy it again$"):
            sync.main()
    (FINISHED / "checkpoint.pt").write_bytes(whole)
    (FINISHED / "history.jsonl").write_text("{\n")
    with pytest.raises(StageError, match=r"history\.jsonl is damaged: .*; copy it again$"):
        sync.main()


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
    present = packages_of("torch", "numpy", "PyYAML")
    absent = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not present & {owner.lower().replace("_", "-") for owner in owners}
    ]
    assert {"PIL", "mlflow", "sklearn", "tqdm"} <= set(absent)
    trained = there.run("-c", BARE, "simclr", " ".join(absent))
    assert trained.returncode == 0, trained.stderr
    assert "Traceback" not in trained.stderr

    shutil.copytree(there.root / "artifacts" / "simclr", project.root / "artifacts" / "simclr")
    for stage_name in ("download@digits", "prepare", "pretrain@simclr"):
        committed = project.dvc("commit", "--force", stage_name)
        assert committed.returncode == 0, committed.stderr
    for _ in range(2):
        synced = project.run("-m", "pipelines.registry.runs", "sync")
        assert synced.returncode == 0, synced.stderr
    done = project.dvc("repro", "register@simclr")
    assert done.returncode == 0, done.stderr
    assert "Stage 'pretrain@simclr' didn't change, skipping" in done.stdout
    receipt = json.loads(project.artifact("simclr", "version.json").read_text())
    assert synced.stdout == f"simclr: 0 rows added to run {receipt['run_id']}\n"
    again = project.run("-m", "pipelines.registry.runs", "sync")
    assert again.stdout == f"simclr: registered already, version 1, run {receipt['run_id']}\n"
    with sqlite3.connect(project.root / "mlflow.db") as database:
        assert database.execute("select count(*) from runs where name = 'simclr'").fetchone() == (1,)
