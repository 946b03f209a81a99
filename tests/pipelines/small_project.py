"""A project of its own in a temporary folder: this tree's sources and small numbers, run as a person runs it."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("simclr", "mae", "dino")
SMALL = {
    "pretrain.log_every": 3,
    "simclr.epochs": 2,
    "simclr.encoder.width": 8,
    "mae.epochs": 2,
    "dino.epochs": 2,
    "dino.encoder.width": 8,
    "probe.shots": [1, 5],
    "probe.label_samples": 2,
    "finetune.shots": [1],
    "promote.labels": 1,
    "finetune.label_samples": 1,
    "finetune.steps": 2,
    "finetune.pseudolabel": True,
    "baseline.shots": [1],
    "baseline.encoders": "all",
    "baseline.label_samples": 1,
    **{f"{baseline}.budget": 0.001 for baseline in ("supervised", "pseudolabel", "fixmatch")},
}


@dataclass(frozen=True)
class Project:
    root: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python …` in the project, to its end."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=900,  # a hang is a failure
        )

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """`python …` in the project, as a child in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.root,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def flow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "pipelines.flow", *arguments)

    def dvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "dvc", *arguments)

    def set(self, values: dict[str, Any], file: str = "params.yaml") -> None:
        """Write dotted keys into a params file."""
        path = self.root / file
        params = yaml.safe_load(path.read_text())
        for key, value in values.items():
            *sections, last = key.split(".")
            reduce(dict.__getitem__, sections, params)[last] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def artifact(self, method: str, name: str) -> Path:
        """Of a method or of a baseline."""
        return self.root / "artifacts" / ("methods" if method in METHODS else "baselines") / method / name


def environment() -> dict[str, str]:
    """A shell's, with this interpreter first and no one's settings of the tools.

    One thread: more would spin for each other where other processes share the cores.
    """
    foreign = ("MLFLOW_", "PREFECT_", "DVC_", "OMP_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}


def make(folder: Path) -> Project:
    """The tracked and the new sources of this tree, without its tests, committed in a repository of their own."""
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    project = Project(folder)
    project.set(SMALL)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "all")
    return project


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout
