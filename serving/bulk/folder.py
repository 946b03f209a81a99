"""List every image file in a folder and below it, links included, and give a reason for what cannot be read."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from serving import ServingError
from serving.host.files import escaped, kind

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
Place = tuple[int, int]  # device and inode, which identify a folder under any name


@dataclass(frozen=True, order=True)
class Entry:
    """One row of a table. reason: why there is nothing to read, a sentence; size in bytes, time in ns."""

    path: Path
    reason: str | None = None
    size: int = 0
    time: int = 0


def entries(folder: Path) -> tuple[list[Entry], int]:
    """The image files sorted by name, and the number of other files. Raises ServingError when there is no image."""
    found: list[Entry] = []
    others = 0
    try:
        todo: list[tuple[Path, frozenset[Place]]] = [(folder, frozenset({_place(folder.stat())}))]
        os.listdir(folder)
    except OSError as error:
        raise ServingError(f"The folder {escaped(folder)} cannot be read: {error.strerror}. Check its path.") from None
    while todo:
        at, above = todo.pop()
        try:
            names = os.listdir(at)
        except OSError as error:
            found.append(Entry(at, f"This folder cannot be read: {error.strerror}."))
            continue
        for path in (at / name for name in names):
            try:
                about = path.stat()
            except OSError as error:
                found.append(Entry(path, _unreachable(path, error)))
                continue
            if stat.S_ISDIR(about.st_mode):
                if (place := _place(about)) in above:
                    found.append(Entry(path, "This links to a folder above it, which was not read again."))
                else:
                    todo.append((path, above | {place}))
            elif path.suffix.lower() not in SUFFIXES:
                others += not path.name.startswith(".")
            elif not stat.S_ISREG(about.st_mode):
                found.append(Entry(path, f"It cannot be read: it is {kind(about.st_mode)}, not a regular file."))
            else:
                found.append(Entry(path, None, about.st_size, about.st_mtime_ns))
    if not found:
        raise ServingError(
            f"The folder {escaped(folder)} holds no image. Add images that end in {', '.join(sorted(SUFFIXES))}."
        )
    return sorted(found), others


def _place(about: os.stat_result) -> Place:
    return about.st_dev, about.st_ino


def _unreachable(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return f"It cannot be read: it links to {escaped(os.readlink(path))}, which is missing."
    return f"It cannot be read: {error.strerror}."
