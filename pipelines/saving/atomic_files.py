"""Files that are whole on the disk or not there: written under a name with a dot, fsynced, renamed, folder fsynced."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from data.disk import refusal
from pipelines.project.stage import StageError


class Hashed:
    """A file that is hashed as it is written, so that a large state is not read for it."""

    def __init__(self, file: BinaryIO):
        self.file, self.sha256, self.bytes = file, hashlib.sha256(), 0
        self.error: OSError | None = None  # kept, since torch's writer would hide it behind one of its own

    def write(self, data: bytes) -> int:
        try:
            if not self.error:
                self.file.write(data)
        except OSError as error:
            self.error = error
        self.sha256.update(data)
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """torch.save asks for it; `write` below flushes once, at the end."""


def write(path: Path, content: Callable[[Any], object]) -> dict[str, Any]:
    """Make a file by content(file); its SHA-256 and size, bytes. On the disk when this returns. Raises OSError."""
    with path.open("wb") as file:
        hashed = Hashed(file)
        content(hashed)
        if hashed.error:
            raise hashed.error
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": hashed.sha256.hexdigest(), "bytes": hashed.bytes}


def replace(path: Path, content: Callable[[Any], object]) -> None:
    """Make or replace a file by content(file): the old or the new one is there, whatever happens. Raises OSError."""
    temporary = path.with_name(f".{path.name}")
    try:
        write(temporary, content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def write_atomically(path: Path, content: Mapping[str, Any]) -> None:
    """torch.save by `replace`, its folder made if need be. Raises StageError when the disk does not take it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, lambda file: torch.save(content, file))
    except OSError as error:
        raise StageError(f"{path} cannot be written: {refusal(error, path)}") from None


def sync(folder: Path) -> None:
    """The names in a folder, on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sealed(content: Mapping[str, Any]) -> bytes:
    """JSON with its own SHA-256."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps(content | {"sha256": digest}, indent=1, sort_keys=True).encode() + b"\n"  # type: ignore[operator]


def unsealed(raw: bytes) -> dict[str, Any] | None:
    """What `sealed` wrote, or None when a single bit of it is another."""
    try:
        content: dict[str, Any] = json.loads(raw)
        del content["sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    return content if sealed(content) == raw else None
