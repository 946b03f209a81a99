"""MLflow and Prefect hold what was trained: runs, figures, versions, pictures, and nothing that is pickled."""

import hashlib
import io
import json
import pickletools
import re
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from mlflow.entities import Run

from models.methods import BASELINES, TITLES
from pipelines.project.history import read_history, trained_seconds
from tests.flows.project import Flows
from tests.pipelines.small_project import METHODS, git


def test_prefect_keeps_the_table(flows: Flows) -> None:
    tables = flows.rows("select data from artifact where type = 'table' and key = 'digits-results'")
    rows = json.loads(json.loads(tables[-1][0]))
    assert len({row["encoder"] for row in rows}) == len(finished(flows))
    assert rows[0]["all labels"] == f"{flows.json('simclr', 'metrics.json')['simclr']['linear_all']:.1f}"


def finished(flows: Flows) -> dict[str, Run]:
    client = flows.client
    where = client.get_experiment_by_name("digits").experiment_id
    runs = client.search_runs([where], "attributes.status = 'FINISHED'")
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def test_mlflow_holds_a_run_a_method_and_a_baseline_with_its_figures(flows: Flows) -> None:
    runs = finished(flows)
    baselines = {who: f for name in BASELINES for who, f in flows.json(name, "metrics.json").items()}
    own = {*METHODS, *(who for m in METHODS for who in (f"random-{m}", f"{m}-pseudolabel")), "pixels"}
    assert runs.keys() == own | baselines.keys()
    assert {"supervised-simclr", "fixmatch-mae"} <= baselines.keys()
    assert all(figures.items() <= runs[who].data.metrics.items() for who, figures in baselines.items())
    for m in METHODS:
        for file in ("metrics.json", "finetune.json"):
            for who, figures in flows.json(m, file).items():
                logged = {k: v for k, v in figures.items() if k not in {"seconds", "images"} or who != m}
                assert logged.items() <= runs[who].data.metrics.items()
        assert runs[m].data.metrics["finetune_seconds"] == flows.json(m, "finetune.json")[m]["seconds"]
        assert runs[m].data.tags["diagnosis"] == flows.json(m, "diagnosis.json")["name"]


def test_the_run_that_failed_says_so_and_none_is_left_running(flows: Flows) -> None:
    client = flows.client
    where = client.get_experiment_by_name("digits").experiment_id
    others = client.search_runs([where], "attributes.status != 'FINISHED'")
    assert [(run.info.run_name, run.info.status) for run in others] == [("dino", "FAILED")]


@pytest.mark.parametrize("method", METHODS)
def test_mlflow_holds_the_history_as_it_was_written(flows: Flows, method: str) -> None:
    run = finished(flows)[method]
    history = [json.loads(row) for row in flows.project.artifact(method, "history.jsonl").read_text().splitlines()]
    assert "effective_rank" in history[0]  # which not every row has
    for name in set().union(*history) - {"step"}:
        logged = flows.client.get_metric_history(run.info.run_id, name)
        assert [(m.step, m.value) for m in logged] == [(row["step"], row[name]) for row in history if name in row]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_lasts_as_long_as_its_training_did(flows: Flows, method: str) -> None:
    """Not until it was registered, after all that was trained beside it."""
    info = finished(flows)[method].info
    history = read_history(flows.project.artifact(method, "history.jsonl"))
    params = yaml.safe_load((flows.project.root / "params.yaml").read_text())
    lasted = trained_seconds(history, params[method]["batch_size"])
    assert info.end_time - info.start_time == round(1000 * lasted)


def test_mlflows_page_begins_with_the_verdict_and_the_table(flows: Flows) -> None:
    (found,) = flows.client.search_experiments(filter_string="name = 'digits'")
    note = found.tags["mlflow.note.content"]
    verdict, table = note.split("Test accuracy in % by labels per class", 1)
    assert "SimCLR: " in verdict
    assert "| encoder | classifier | 1 label | 5 labels | all labels |" in table
    assert len(re.findall(r"^\| SimCLR \| linear probe \|", table, re.MULTILINE)) == 1


def test_a_run_says_of_what_data_code_and_packages_it_is(flows: Flows) -> None:
    raw = re.search(
        r"path: data/raw/digits\n\s+hash: md5\n\s+md5: (\w+)\.dir", (flows.project.root / "dvc.lock").read_text()
    )
    lock = hashlib.sha256((flows.project.root / "requirements.lock").read_bytes()).hexdigest()
    commit = git(flows.project.root, "rev-parse", "HEAD").strip()
    assert raw
    for method in METHODS:
        run = finished(flows)[method]
        (used,) = run.inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("digits", f"{raw[1]}.dir"[:36])
        assert run.data.tags["lock_digest"] == lock
        assert run.data.tags["git_commit"].removesuffix("-dirty") == commit


def test_versions_have_aliases_and_their_onnx_twin(flows: Flows) -> None:
    champion = flows.json("promoted.json")["champion"]
    for alias in (*METHODS, "champion"):
        ours = flows.client.get_model_version_by_alias("digits-encoder", alias)
        twin = flows.client.get_model_version_by_alias("digits-encoder-onnx", alias)
        assert ours.tags["method"] == twin.tags["method"] == (champion if alias == "champion" else alias)
        assert (ours.tags["onnx_version"], twin.tags["encoder_version"]) == (str(twin.version), str(ours.version))
        receipt = flows.json(ours.tags["method"], "version.json")
        assert (str(ours.version), ours.run_id) == (receipt["version"], receipt["run_id"])


def test_the_champion_is_read_on_val_as_it_will_be_used(flows: Flows) -> None:
    read = {m: flows.json(m, "metrics.json")[m]["val_linear_1"] for m in METHODS}
    promoted = flows.json("promoted.json")
    ranked = sorted(METHODS, key=lambda m: -read[m])
    index = (flows.project.root / "data" / "prepared" / "index.csv").read_text().splitlines()
    images = sum(",val," in row for row in index)
    assert promoted["reason"].endswith(
        "Validation accuracy of a linear probe at 1 label per class: "
        + ", ".join(f"{TITLES[m]} {read[m]:.1f} %" for m in ranked)
        + f" ({images} images)."
    )
    best = promoted["champion"] == ranked[0]
    assert promoted["reason"].startswith("It did best" if best else "It is within one standard error of ")
    for model in promoted["models"]:
        data = (flows.project.root / model["archive"]).read_bytes()
        assert model["sha256"] == hashlib.sha256(data).hexdigest()
    served = {model["name"]: model["method"] for model in promoted["models"]}
    assert served == {f"digits-{m}": m for m in METHODS} | {"digits-encoder": promoted["champion"]}


def test_going_back_to_earlier_params_takes_mlflow_along(flows: Flows) -> None:
    champion = flows.client.get_model_version_by_alias("digits-encoder", "champion")
    assert champion.tags["promoted_because"] == flows.json("promoted.json")["reason"]


def test_mlflow_holds_the_pictures_and_the_page(flows: Flows) -> None:
    champion = flows.json("promoted.json")["champion"]
    for method in METHODS:
        run = flows.json(method, "version.json")["run_id"]
        kept = {item.path for item in flows.client.list_artifacts(run, "pictures")}
        assert {f"pictures/{name}.png" for name in ("neighbours", "views", "map", "loss")} <= kept
        if method == "mae":
            assert {f"pictures/{name}.png" for name in ("attention", "75% hidden", "75% filled in")} <= kept
        if method == champion:
            page = Path(flows.client.download_artifacts(run, "report.html"))
            assert page.read_bytes() == (flows.project.root / "artifacts" / "report.html").read_bytes()


def test_nothing_in_the_store_is_pickled(flows: Flows) -> None:
    files = [path for path in (flows.project.root / "mlruns").rglob("*") if path.is_file()]
    assert any(path.name == "weights.safetensors" for path in files)
    for path in files:
        data = path.read_bytes()
        assert path.suffix not in {".pkl", ".pickle", ".pth", ".pt", ".pt2", ".joblib"}
        assert not zipfile.is_zipfile(path), path
        assert not is_pickle(data), path
        assert b"cloudpickle" not in data, path


def is_pickle(data: bytes) -> bool:
    try:
        return sum(1 for _ in pickletools.genops(io.BytesIO(data))) > 0
    except Exception:  # it raises nearly anything on bytes that are no pickle
        return False


def test_the_scan_for_pickles_finds_one(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "a", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.zeros(1)}, tmp_path / "b")
    assert is_pickle((tmp_path / "a").read_bytes())
    assert zipfile.is_zipfile(tmp_path / "b")
