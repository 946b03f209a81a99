"""params.yaml as YAML has it, or one sentence that says why it cannot be read."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipelines.project.parse import ConfigError, shown

RESTORE = "Run the command in the project's folder, or make the file again: cp recipes/digits.yaml params.yaml"


def read(path: Path) -> Mapping[Any, Any]:
    """The file's keys and values. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(f"{path} is {'not a file' if path.exists() else 'missing'}. {RESTORE}")
    content = path.read_bytes()
    try:
        found = yaml.load(content.decode("utf-8-sig"), Strict)
    except UnicodeDecodeError as error:
        line, byte = 1 + content.count(b"\n", 0, error.start), content[error.start]
        fault = f"is not UTF-8: line {line} has the byte 0x{byte:02x}. Save it again with the encoding UTF-8"
        raise ConfigError(f"{path} {fault}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or a number that Python refuses
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not YAML: its values are nested too deeply") from None
    if not isinstance(found, Mapping):
        what = "empty" if found is None else f"{shown(found)}, not sections of keys and values"
        raise ConfigError(f"{path} is {what}. {RESTORE}")
    return found


class Strict(yaml.SafeLoader):
    """YAML takes the last of two equal keys without a word; here the second one is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if isinstance(key, Hashable) and lines.setdefault(key, line) != line:
                raise ConfigError(f"{shown(key)} is there twice, in lines {lines[key]} and {line}. Remove one of them")
        return super().construct_mapping(node, deep)


def flat(params: Any, prefix: str = "") -> dict[str, str]:
    """Nested params as MLflow keeps them: dotted names and texts."""
    if isinstance(params, Mapping):
        return {k: v for name, value in params.items() for k, v in flat(value, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): str(params)}
