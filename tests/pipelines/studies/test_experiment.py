"""A study from its file to its verdict, through DVC, Prefect and MLflow: run, killed, run again."""

import json
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from mlflow import MlflowClient

from tests.pipelines.small_project import Project, make

Done = subprocess.CompletedProcess[str]

RUN = ("-m", "pipelines.studies", "T1", "T2", "--scale", "quick")
FEW = {"finetune.shots": [], "finetune.label_samples": 1, "baseline.shots": [], "baseline.label_samples": 1}
FEW |= {"mae.epochs": 1, "probe.shots": [5], "probe.label_samples": 2}
BASE = {
    "title": "How much to mask",
    "question": "How much should be masked?",
    "method": "mae",
    "source": "ours",
    "factor": "mask ratio, %",
    "metrics": ["linear_5", "seconds"],
    "curves": ["relative_loss"],
    "levels": {f"{share} %": {"x": share, "set": {"mae.mask_ratio": share / 100}} for share in (25, 75)},
    "claims": [{"claim": "More is better.", "source": "us", "better": "75 %", "than": ["25 %"], "by": 1.0}],
    "scales": {"quick": {"recipe": "demo", "seeds": 1, "set": FEW}},
}
SHARED = BASE | {
    "title": "The same once more",
    "levels": {"base": {"x": 75, "set": {"mae.mask_ratio": 0.75}}},
    "claims": [],
    "reading": "reconstruction",
}


@dataclass(frozen=True)
class Studies:
    """A project whose study was killed after its first cell, then run to its end, then run again."""

    project: Project
    kept: dict[Path, float]  # files of the cell that was finished before the kill, and when they were written
    left: list[psutil.Process]  # of the killed study, after the next one
    first: Done
    again: Done

    def result(self, name: str) -> Any:
        return json.loads((self.project.root / f"artifacts/studies/quick/{name}.json").read_text())


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    project = make(tmp_path_factory.mktemp("studies"))
    for name, of in {"T1": BASE, "T2": SHARED}.items():
        (project.root / f"studies/{name}.yaml").write_text(yaml.safe_dump(of, allow_unicode=True))
    with project.start(*RUN) as running:
        assert running.stdout
        assert any("T1 " in line and "done in" in line for line in running.stdout)
        below = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(signal.SIGKILL)
    done = (project.root / ".scratch/studies").glob("mae-*/artifacts/methods/mae/scores.csv")
    kept = {path: path.stat().st_mtime for path in done}
    first = project.run(*RUN)
    _, left = psutil.wait_procs(below, timeout=60)
    return Studies(project, kept, left, first, project.run(*RUN))


def test_a_killed_study_repeats_no_finished_cell_and_leaves_no_process(studies: Studies) -> None:
    assert studies.kept
    assert {path: path.stat().st_mtime for path in studies.kept} == studies.kept
    assert not studies.left
    assert studies.first.returncode == studies.again.returncode == 0, studies.first.stderr


def test_it_ends_with_the_answer_and_a_verdict_for_each_claim(studies: Studies) -> None:
    """One seed decides nothing, and says so."""
    assert "T1: Best by linear probe, 5 labels per class: " in studies.first.stdout
    assert "  UNDERPOWERED: More is better." in studies.first.stdout
    assert "studies/report.html" in studies.first.stdout
    assert (studies.project.root / "studies/report.html").exists()


def test_running_it_again_trains_nothing_and_says_the_same(studies: Studies) -> None:
    answers = [
        [line for line in of.stdout.splitlines() if line.startswith(("T1", "T2", "  "))]
        for of in (studies.first, studies.again)
    ]
    told = [[line for line in of if "running" not in line and "done in" not in line] for of in answers]
    assert told[0][-8:] == told[1][-8:]


def test_equal_cells_of_two_studies_are_trained_once(studies: Studies) -> None:
    assert len(list((studies.project.root / ".scratch/studies").glob("mae-*"))) == 2
    assert studies.result("T2")["figures"]["linear_5"]["base"] == studies.result("T1")["figures"]["linear_5"]["75 %"]


def test_the_cells_are_children_of_one_run_in_mlflow(studies: Studies) -> None:
    client = MlflowClient(f"sqlite:///{studies.project.root}/mlflow.db")
    (experiment,) = [e.experiment_id for e in client.search_experiments() if e.name == "digits"]
    runs = client.search_runs([experiment])
    (parent,) = [run for run in runs if run.data.tags.get("study") == "study T1 (quick)"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.data.tags["study T1"] for run in children} == {"25 %", "75 %"}
    assert {run.info.status for run in children} == {"FINISHED"}
    assert all("linear_5" in run.data.metrics for run in children)


def test_a_reading_is_a_stage_of_the_cell(studies: Studies) -> None:
    (found,) = (studies.project.root / ".scratch/studies").glob("mae-*/artifacts/methods/mae/reconstruction.json")
    losses = json.loads(found.read_text())
    assert set(losses) == {f"loss_{share}" for share in (25, 50, 75, 85, 90, 95)}
    assert set(studies.result("T2")["pictures"]) == {"base"}


def test_the_project_itself_is_as_it_was(studies: Studies) -> None:
    """Its params, artifacts and stages are not those of a cell."""
    assert not (studies.project.root / "artifacts/methods").exists()
    assert studies.project.dvc("status", "--quiet", "settings").returncode in (0, 1)
