"""The origin of a version: the commit that is checked out, and the digests that dvc.lock records."""

import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from pipelines.project.stage import StageError


def git_commit() -> str:
    """The commit that is checked out, with `-dirty` when files differ from it; `none` outside git."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    return described.stdout.strip() or "none"


def locked_stages(path: Path = Path("dvc.lock"), seconds: float = 10) -> dict[str, Any]:
    """Stage → its entry in dvc.lock; empty outside DVC.

    DVC rewrites the file in place when another stage ends. A file that is not complete is read again.
    """
    end = time.monotonic() + seconds
    while path.exists():
        try:
            return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["stages"])
        except (yaml.YAMLError, TypeError, KeyError, ValueError):
            if time.monotonic() > end:
                raise StageError(
                    f"The file {path} cannot be read. Restore it with `git checkout {path}` or remove it, then run the "
                    "same command again."
                ) from None
            time.sleep(0.05)
    return {}


def dvc_digest(stage_name: str, kind: str, path: str) -> str:
    """The digest of a path that dvc.lock records; `unknown` when the stage ran outside DVC."""
    entries = locked_stages().get(stage_name, {}).get(kind, [])
    return next((str(e["md5"]) for e in entries if e["path"] == path), "unknown")
