"""A folder of images → its files, each with the split and the label that its folders say."""

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from data import DataError
from data.folders import layout, remarks

IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}
# What comes with images and is neither an image nor a bad one: notes, tables, annotations, archives, arrays.
OTHER_ENDS = {
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".rst", ".html", ".htm", ".pdf"),
    *(".log", ".py", ".ipynb", ".mat", ".npy", ".npz", ".pkl", ".h5", ".hdf5", ".parquet", ".tfrec", ".tfrecord"),
    *(".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"),
}
OTHER_NAMES = {"readme", "license", "licence", "changelog"}


@dataclass(frozen=True, slots=True)
class File:
    """path: relative to the root, POSIX; split: "train", "val", "test", EXTRA or None; label: class name or None."""

    path: str
    split: str | None
    label: str | None


@dataclass(frozen=True)
class Found:
    """files: sorted by path; rejected: (path, reason) of what was not followed, undecodable names escaped.

    layout: how the folders were understood, in one line; cautions: what in it may be other than the person meant.
    """

    root: Path
    files: list[File] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    layout: str = ""
    cautions: list[str] = field(default_factory=list)


def find(root: Path, labels: bool = True) -> Found:
    """Every candidate file below `root`, in a deterministic order.

    `layout` says what the folders mean; labels=False gives every file the label None. Raises DataError when there is
    no folder or no file in it.
    """
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"The path {root} {problem}. Give a folder of images, or run `dvc repro` to download it.")
    walked, rejected = _walk(root)
    paths = sorted(path for path in walked if not _is_other(path))
    if walked and not paths:
        raise DataError(f"The folder {root} holds no images, only other files such as {min(walked)}. Add images.")
    if not paths:
        aside = "".join(f" ({path or 'itself'}: {reason})" for path, reason in rejected[:1])
        raise DataError(f"The folder {root} holds no files{aside}. Put images into it, directly or in class folders.")
    counts = Counter(path.rpartition("/")[0] for path in paths)
    folders = {folder: tuple(folder.split("/")) if folder else () for folder in counts}
    meaning = layout.understand(folders.values(), labels)
    files = [File(path, *meaning.places[folders[path.rpartition("/")[0]]]) for path in paths]
    sizes = {folders[folder]: count for folder, count in counts.items()}
    line = remarks.understood(root, meaning, sizes, labels, others=len(walked) - len(paths))
    return Found(root, files, sorted(rejected), line, remarks.cautions(meaning, sizes))


def _is_other(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return os.path.splitext(name)[1] in OTHER_ENDS or name in OTHER_NAMES


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
                rejected.append((shown(path), kind))
        links.sort(reverse=True)
    return files, rejected


def _kind(root: Path, path: str, is_link: bool) -> str:
    """ "file", "folder", or the reason why it is neither."""
    if shown(path) != path:
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


def shown(path: str) -> str:
    """A path as text; what is not UTF-8 in it is escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
