"""Read params.yaml as YAML, or say in one sentence why it cannot be read."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipelines.project import ConfigError
from pipelines.project.parse import shown

RESTORE = "Run the command in the project's folder, or restore the file: cp recipes/demo.yaml params.yaml."


def read(path: Path) -> Mapping[Any, Any]:
    """The keys and values of the file. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(f"The file {path} is {'no regular file' if path.exists() else 'missing'}. {RESTORE}")
    content = path.read_bytes()
    try:
        found = yaml.load(content.decode("utf-8-sig"), Strict)
    except UnicodeDecodeError as error:
        line, byte = 1 + content.count(b"\n", 0, error.start), content[error.start]
        fault = f"line {line} has the byte 0x{byte:02x}"
        raise ConfigError(f"The file {path} is not UTF-8: {fault}. Save it with the encoding UTF-8.") from None
    except Twice as error:
        raise ConfigError(f"The file {path} has {error}. Remove one of them.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or a number that Python refuses
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(f"The file {path} is not YAML: {reason}. Correct that place.") from None
    except RecursionError:
        raise ConfigError(f"The file {path} cannot be read: its values are nested too deeply. {RESTORE}") from None
    if not isinstance(found, Mapping):
        what = "empty" if found is None else f"{shown(found)}, not sections of keys and values"
        raise ConfigError(f"The file {path} is {what}. {RESTORE}")
    return found


class Twice(Exception):
    """The key that stands in the file twice, and its lines."""


class Strict(yaml.SafeLoader):
    """YAML silently takes the last of two equal keys. Here the second one is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if isinstance(key, Hashable) and lines.setdefault(key, line) != line:
                raise Twice(f"the key {shown(key)} twice, in lines {lines[key]} and {line}")
        return super().construct_mapping(node, deep)


def flat(params: Any, prefix: str = "") -> dict[str, str]:
    """Nested params as MLflow keeps them: dotted names and texts."""
    if isinstance(params, Mapping):
        return {k: v for name, value in params.items() for k, v in flat(value, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): str(params)}
