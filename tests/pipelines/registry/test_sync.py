"""Trainings from elsewhere come into MLflow once, and go on in the same run."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from pipelines.project import stage
from pipelines.project.stage import StageError
from pipelines.registry import mlflow_store, receipts, sync
from pipelines.registry.live_curves import LiveRun
from tests.pipelines.registry.history import write_history
from tests.pipelines.small_project import ROOT

SPEC: dict[str, Any] = {"method": "simclr", "dataset": "digits"}
WEIGHTS = {"stem.weight": torch.arange(6.0)}
FINISHED, UNFINISHED = Path("artifacts/methods/simclr"), Path(".scratch/pretrain/simclr")


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
    assert capsys.readouterr().out == "simclr, unfinished: skipped, because it is training now\n"
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
    assert capsys.readouterr().out.startswith(
        "There is nothing to sync. Neither artifacts/methods/<method>/checkpoint.pt"
    )
    trained_elsewhere()
    whole = (FINISHED / "checkpoint.pt").read_bytes()
    for broken in (b"", whole[: len(whole) // 2], b"\0" * 99):
        (FINISHED / "checkpoint.pt").write_bytes(broken)
        with pytest.raises(
            StageError, match=r"^The file artifacts/methods/simclr/checkpoint\.pt cannot be read .*\. Copy it"
        ):
            sync.main()
    (FINISHED / "checkpoint.pt").write_bytes(whole)
    (FINISHED / "history.jsonl").write_text("{\n")
    with pytest.raises(StageError, match=r"history\.jsonl is damaged: .*\. Copy it again\.$"):
        sync.main()
