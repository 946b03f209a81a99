"""A project of its own in a temporary folder: this tree's sources, the bundled digits prepared, few epochs."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
# As on a machine without MLflow, and with one thread, because training runs share the machine.
BARE = "import sys; sys.modules['mlflow'] = None; "
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@contextmanager
def workspace() -> Iterator[Path]:
    """The folder, prepared; removed at the end."""
    with tempfile.TemporaryDirectory(prefix="encoder-foundry-") as folder:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, path)
        for command in (["data.sources", "digits", "--out", "data/raw/digits"], ["pipelines.prepare"]):
            subprocess.run([sys.executable, "-m", *command], cwd=folder, env=ENVIRONMENT, check=True)
        yield Path(folder)


def configure(folder: Path, values: Mapping[str, Any]) -> None:
    """Dotted keys into params.yaml."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for key, value in values.items():
        *sections, last = key.split(".")
        reduce(dict.__getitem__, sections, params)[last] = value
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def start(folder: Path, program: str, *arguments: str, log: Path) -> "subprocess.Popen[bytes]":
    """`python -c program …` in the folder; what it says goes into the log."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-c", BARE + program, *arguments],
            cwd=folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
