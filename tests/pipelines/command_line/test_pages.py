"""`foundry recipes`, `status`, `report` and `clean`."""

import fcntl
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.command_line import activity, disk_use, program, project, recipes, report_page, screen, status
from pipelines.command_line.doctor import ports
from pipelines.orchestration import ui
from pipelines.project import stage
from tests.pipelines.command_line.conftest import Foundry
from tests.pipelines.small_project import make


def shown(*arguments: str) -> str:
    """What a command prints; it succeeds."""
    done = CliRunner().invoke(program.app, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_places_are_those_of_the_pipeline() -> None:
    """They are written twice, because the pipeline's modules import torch."""
    assert (status.PROMOTED, report_page.PAGE) == (stage.PROMOTED, stage.PAGE)
    assert stage.SCRATCH / "locks" == activity.LOCKS
    assert (ui.MLFLOW, ui.PREFECT) == ports.PAGES


def test_every_recipe_says_what_it_is_and_what_it_needs() -> None:
    rows = [recipe.row for recipe in recipes.every()]
    assert [row[0] for row in rows] == project.recipe_names()
    assert not [row for row in rows if not all(row)]
    assert not [row for row in rows if row[2].startswith("your copy") != row[0].startswith("imagenet-")]


def test_recipes_is_a_table_and_one_recipe_is_a_page() -> None:
    lines = shown("recipes").splitlines()
    assert lines[0].split() == ["recipe", "what", "it", "trains", "images", "machine", "time"]
    assert any(line.startswith("digits ") and "1 × 4 GB, a CPU" in line for line in lines)
    assert "Expected" in shown("recipes", "stl10")


def test_status_of_a_project_in_which_nothing_has_run(project: Path) -> None:
    lines = shown("status").splitlines()
    assert lines[0].split() == ["data", "set", "digits"]
    assert lines[-1] == "No stage has run yet. To run the pipeline: foundry run"


def test_status_tells_what_is_promoted_and_what_runs(project: Path) -> None:
    (project / "artifacts").mkdir()
    models = [
        {"name": name, "method": "mae", "version": "7", "archive": "a.mar", "sha256": ""}
        for name in ("digits-encoder", "digits-mae")
    ]
    (project / "artifacts/promoted.json").write_text(
        json.dumps({"dataset": "digits", "champion": "mae", "models": models})
    )
    (project / "dvc.lock").touch()
    with stage.locked("flow"):
        printed = shown("status")
    assert "champion  mae (version 7 of digits-encoder)\n" in printed
    assert "running   flow\n" in printed
    assert "A flow is running" in printed


def test_status_asks_dvc_which_stages_the_next_run_does(tmp_path: Path) -> None:
    small = make(tmp_path)
    assert small.dvc("repro", "settings").returncode == 0
    done = small.run("-m", "pipelines.command_line", "status")
    assert done.stderr == ""
    last = done.stdout.splitlines()[-1]
    assert last.startswith("1 of ")
    assert "The next foundry run does: download@digits, prepare, " in last


def test_the_report_opens_in_the_browser_if_there_is_one(
    project: Path, foundry: Foundry, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = foundry("report", cwd=project)
    assert missing.returncode == 1
    assert "Run `foundry run` to make it" in missing.stderr
    page = project / "artifacts" / "report.html"
    page.parent.mkdir()
    page.touch()
    assert foundry("report", "--print-path", cwd=project).stdout == f"{page}\n"
    for name in report_page.DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    if sys.platform == "linux":
        assert shown("report") == f"{page}\n"
    browser = project / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > opened\n')
    browser.chmod(0o755)
    assert foundry("report", cwd=project, BROWSER=f"{browser} %s").stdout == ""
    assert (project / "opened").read_text() == f"{page.as_uri()}\n"


def test_clean_removes_what_can_be_made_again(project: Path) -> None:
    kept = [".scratch/params.before.yaml", "dvc.lock", "mlflow.db", ".dvc/cache/files", "data/raw/own/1.png"]
    gone = [".scratch/pretrain/simclr/checkpoint.pt", "artifacts/report.html", "data/prepared/index.csv", "site/a.html"]
    for name in [*kept, *gone]:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(b"x" * 10_000)
    (project / "serving").unlink()
    size = screen.size(disk_use.taken(project / "artifacts"))
    printed = shown("clean")
    assert f"removed artifacts ({size})\n" in printed
    assert printed.splitlines()[-1].endswith(" kB freed.")
    assert [name for name in [*kept, *gone] if (project / name).exists()] == kept
    assert shown("clean") == "There was nothing to remove.\n"


def test_clean_removes_nothing_under_a_running_flow(project: Path) -> None:
    (project / "artifacts").mkdir()
    with stage.locked("pretrain@simclr"):
        done = CliRunner().invoke(program.app, ["clean"])
    assert done.exit_code == 1
    assert (project / "artifacts").exists()


def test_clean_leaves_a_running_endpoint_its_folder(project: Path) -> None:
    (project / "serving").unlink()
    lock = project / "serving" / "run" / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "To stop it: foundry serve --stop" in shown("clean")
        assert lock.exists()
    shown("clean")
    assert not lock.parent.exists()
