"""Recipes: whole files of numbers, chosen by name, that become params.yaml."""

import re
from itertools import count
from pathlib import Path

from pipelines.project import config, stage
from pipelines.project.stage import StageError


def read(name: str) -> str:
    """The text of recipes/<name>.yaml. Raises StageError with the names that there are."""
    known = sorted(path.stem for path in Path("recipes").glob("*.yaml"))
    if name not in known:
        raise StageError(f"{name} is not a recipe; there are: {', '.join(known)}")
    return Path("recipes", f"{name}.yaml").read_text(encoding="utf-8")


def of_own_folder(text: str, dataset: str) -> str:
    """The text of a recipe for a folder of the user's, data/raw/<dataset>: nothing is fetched."""
    text = re.sub(r"^dataset: \S+", f'dataset: "{dataset}"', text, flags=re.MULTILINE)
    return re.sub(r"^download: \[[^]]*\]", "download: []", text, flags=re.MULTILINE)


def write(text: str, what: str) -> None:
    """Make this text params.yaml and keep the file before it; nothing happens where it is the same."""
    before = config.PARAMS.read_bytes() if config.PARAMS.exists() else b""
    if text.encode() == before:
        return
    line = f"params.yaml is now {what}"
    if before:
        line += f"; the one before is in {keep(before)}"
    config.PARAMS.write_text(text, encoding="utf-8")
    print(line)


def keep(before: bytes) -> Path:
    """A file of its own for the params before; an earlier one, which may be somebody's work, is never written over."""
    stage.SCRATCH.mkdir(exist_ok=True)
    for number in count(1):
        kept = stage.SCRATCH / f"params.before{'' if number == 1 else f'.{number}'}.yaml"
        if not kept.exists():
            kept.write_bytes(before)
        if kept.read_bytes() == before:
            return kept
    raise AssertionError("there is always a next number")
