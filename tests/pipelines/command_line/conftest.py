"""A project without any results, whose sources are this tree's."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.small_project import ROOT, environment

Foundry = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its folder, which is also the working directory."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("data", "models", "pipelines", "serving", "recipes", "dvc.yaml", "params.yaml", "requirements.lock"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "data").unlink()
    (folder / "data").mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def foundry() -> Foundry:
    """`foundry …` as a process of its own, to its end."""

    def run(*arguments: str, cwd: Path = ROOT, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "pipelines.command_line", *arguments],
            cwd=cwd,
            env=environment() | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"} | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


def pid_of_the_dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
