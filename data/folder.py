"""A folder of images → its files, with the split and the label that their folders give them."""

import os
import stat
import sys
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from data import DataError

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
UNLABELLED = {"unlabeled", "unlabelled"}
IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True, slots=True)
class File:
    """path: relative to the root, POSIX; split: "train", "val", "test" or None; label: class name or None."""

    path: str
    split: str | None
    label: str | None


@dataclass(frozen=True)
class Found:
    """files: sorted by path; rejected: (path, reason) of what was not followed, undecodable names escaped."""

    root: Path
    files: list[File] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)


def find(root: Path, labels: bool = True) -> Found:
    """Every candidate file below `root`, in a deterministic order.

    The first folder below the root is a split where it has a split's name, the next one is the label;
    labels=False gives every file the label None. Raises DataError when there is no folder or no file in it.
    """
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root} {problem}; give a folder of images, or run `dvc repro` to download it")
    paths, rejected = _walk(root)
    if not paths:
        aside = "".join(f" ({path or 'itself'}: {reason})" for path, reason in rejected[:1])
        raise DataError(f"{root} holds no files{aside}; put images into it, directly or in class folders")
    has_splits = any(path.split("/")[0].lower() in SPLITS for path in paths if "/" in path)
    files = [_place(path, has_splits, labels) for path in sorted(paths)]
    return Found(root, files, sorted(rejected))


def _place(path: str, has_splits: bool, labels: bool) -> File:
    *folders, _ = path.split("/")
    split = SPLITS.get(folders[0].lower()) if folders else None
    if split:
        del folders[0]
    label = folders[0] if folders and labels else None
    if folders and folders[0].lower() in UNLABELLED:
        label, split = None, split or ("train" if has_splits else None)
    # macOS writes é as two code points, Linux as one: the same class.
    return File(path, split, label and sys.intern(unicodedata.normalize("NFC", label)))


def _walk(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Relative paths of regular files, and (path, reason) of the rest.

    Real folders are walked before linked ones, so that a folder is known by its own name.
    """
    files: list[str] = []
    rejected: list[tuple[str, str]] = []
    walked: set[str] = set()
    folders, links = [""], list[str]()
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        real = os.path.realpath(root / folder)
        if real in walked:
            rejected.append((folder, "symlink to a folder already walked"))
            continue
        walked.add(real)
        try:
            with os.scandir(root / folder) as entries:
                names = sorted((entry.name, entry.is_symlink()) for entry in entries)
        except OSError as error:
            rejected.append((folder, f"the folder cannot be listed: {error.strerror}"))
            continue
        for name, is_link in names:
            if name.startswith(".") or name.lower() in IGNORED:
                continue
            path = f"{folder}/{name}" if folder else name
            kind = _kind(root, path, is_link)
            if kind == "folder":
                (links if is_link else folders).append(path)
            elif kind == "file":
                files.append(path)
            else:
                rejected.append((_shown(path), kind))
        links.sort(reverse=True)
    return files, rejected


def _kind(root: Path, path: str, is_link: bool) -> str:
    """ "file", "folder", or the reason why it is neither."""
    if _shown(path) != path:
        return "the name is not valid UTF-8"
    try:
        mode = (root / path).stat().st_mode
    except FileNotFoundError:
        return "dangling symlink"
    except OSError as error:
        return "symlink loop" if is_link else f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(mode):
        here = os.path.realpath((root / path).parent)
        target = os.path.realpath(root / path)
        return "symlink loop" if is_link and f"{here}/".startswith(f"{target.rstrip('/')}/") else "folder"
    return "file" if stat.S_ISREG(mode) else "not a regular file"


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
