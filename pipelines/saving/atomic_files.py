"""Write files that are complete on the disk or not there at all.

A file is written under a name with a dot in front, fsynced and renamed; then its folder is fsynced.
"""

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
    """Hashes a file while it is written, so that a large state need not be read again."""

    def __init__(self, file: BinaryIO):
        self.file, self.sha256, self.bytes = file, hashlib.sha256(), 0
        self.error: OSError | None = None  # kept, because torch's writer would replace it by an error of its own

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
        """torch.save calls it. `write` below flushes once, at the end."""


def write(path: Path, content: Callable[[Any], object]) -> dict[str, Any]:
    """Write a file with content(file), fsync it, and return its SHA-256 and size in bytes. Raises OSError."""
    with path.open("wb") as file:
        hashed = Hashed(file)
        content(hashed)
        if hashed.error:
            raise hashed.error
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": hashed.sha256.hexdigest(), "bytes": hashed.bytes}


def replace(path: Path, content: Callable[[Any], object]) -> None:
    """Write or replace a file with content(file). After a crash, the old or the new file is there. Raises OSError."""
    temporary = path.with_name(f".{path.name}")
    try:
        write(temporary, content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def replace_text(path: Path, text: str) -> None:
    """The same of a text in UTF-8."""
    replace(path, lambda file: file.write(text.encode()))


def write_atomically(path: Path, content: Mapping[str, Any]) -> None:
    """torch.save by `replace`; creates the folder. Raises StageError when the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, lambda file: torch.save(content, file))
    except OSError as error:
        raise StageError(f"The file {path} cannot be written: {refusal(error, path)}.") from None


def sync(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
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
    """The content that `sealed` wrote, or None when a single bit differs."""
    try:
        content: dict[str, Any] = json.loads(raw)
        del content["sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    return content if sealed(content) == raw else None
