"""Recipes: complete files of parameters, chosen by name, that become params.yaml."""

import re
from itertools import count
from pathlib import Path

from pipelines.project import config, stage
from pipelines.project.stage import StageError


def read(name: str) -> str:
    """The text of recipes/<name>.yaml. Raises StageError, which lists the recipes, when there is none of that name."""
    known = sorted(path.stem for path in Path("recipes").glob("*.yaml"))
    if name not in known:
        raise StageError(f"There is no recipe {name}. Allowed: {', '.join(known)}.")
    return Path("recipes", f"{name}.yaml").read_text(encoding="utf-8")


def of_own_folder(text: str, dataset: str) -> str:
    """The text of a recipe for a folder of the user's, data/raw/<dataset>: nothing is fetched."""
    text = re.sub(r"^dataset: \S+", f'dataset: "{dataset}"', text, flags=re.MULTILINE)
    return re.sub(r"^download: \[[^]]*\]", "download: []", text, flags=re.MULTILINE)


def write(text: str, what: str) -> None:
    """Write this text to params.yaml and keep the previous file. Does nothing when both are equal."""
    before = config.PARAMS.read_bytes() if config.PARAMS.exists() else b""
    if text.encode() == before:
        return
    line = f"The file params.yaml is now {what}."
    if before:
        line += f" The previous one is saved as {keep(before)}."
    config.PARAMS.write_text(text, encoding="utf-8")
    print(line)


def keep(before: bytes) -> Path:
    """Save the previous params in a file of their own. Earlier ones may be somebody's work and are never replaced."""
    stage.SCRATCH.mkdir(exist_ok=True)
    for number in count(1):
        kept = stage.SCRATCH / f"params.before{'' if number == 1 else f'.{number}'}.yaml"
        if not kept.exists():
            kept.write_bytes(before)
        if kept.read_bytes() == before:
            return kept
    raise AssertionError("there is always a next number")
