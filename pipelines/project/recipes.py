"""Recipes: complete files of parameters, chosen by name, that become params.yaml."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any, Self

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from pipelines.project import ConfigError, config, stage
from pipelines.project import params as params_file
from pipelines.project.stage import StageError


@dataclass(frozen=True)
class Change:
    """A value for a key of params.yaml, as `simclr.temperature`."""

    key: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `simclr.temperature=0.2`. Raises ConfigError."""
        key, equals, value = text.partition("=")
        if not (key.strip() and equals):
            raise ConfigError(f"The option --set {text} is not KEY=VALUE. Write it as --set seeds=3.")
        try:
            return cls(key.strip(), yaml.safe_load(value))
        except yaml.YAMLError:
            raise ConfigError(
                f"The option --set {text} has no YAML value: {value}. Quote it, such as --set 'seeds=3'."
            ) from None

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


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


def downloads(text: str) -> list[str]:
    """The public sets that a recipe fetches."""
    found: list[str] = yaml.safe_load(text)["download"]
    return found


def changed(changes: Sequence[Change]) -> str:
    """The text of params.yaml with these changes; its comments stay. Raises ConfigError where a change is not valid."""
    editor = YAML()
    editor.width, editor.preserve_quotes = 4096, True
    params_file.read(config.PARAMS)  # or its fault would be a traceback of the editor
    params = editor.load(config.PARAMS.read_text(encoding="utf-8"))
    for change in changes:
        *sections, key = change.key.split(".")
        section = params
        for name in sections:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            raise ConfigError(f"The file params.yaml has no section {'.'.join(sections)}. Correct --set {change}.")
        section[key] = in_one_line(change.value)
    text = StringIO()
    editor.dump(params, text)
    try:
        config.checked(yaml.safe_load(text.getvalue()))
    except ConfigError as error:
        sentence = str(error)
        raise ConfigError(f"{sentence} Correct {', '.join(f'--set {change}' for change in changes)}.") from None
    return text.getvalue()


def in_one_line(value: Any) -> Any:
    """The value as the editor writes it: a list in brackets, as the recipes have them."""
    if isinstance(value, list):
        value = CommentedSeq(value)
        value.fa.set_flow_style()
    return value


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
