"""Which folders of data/raw did this project make? A downloaded set carries a note that says so.

The note protects the user's own folders: a folder without a note, or one that changed since, is never touched.
"""

import hashlib
import json
from pathlib import Path

NOTE = ".origin.json"  # hidden, so that it is not taken for an image


def sign(folder: Path, name: str, code: Path) -> None:
    """Write the note into a finished folder: the set's name, and digests of the code that made it and of its files."""
    note = {"set": name, "code": _digest(code), "files": contents(folder)}
    (folder / NOTE).write_text(json.dumps(note) + "\n", encoding="utf-8")


def is_ours(folder: Path, name: str) -> bool:
    """Whether the folder holds the set of this name as we made it, every file unchanged, none added, none removed."""
    note = _read(folder)
    return note.get("set") == name and note.get("files") == contents(folder)


def is_signed(folder: Path, name: str) -> bool:
    """The same without reading the files: whether we made the folder, changed since or not."""
    return _read(folder).get("set") == name


def is_current(folder: Path, code: Path) -> bool:
    """Whether the code that made the folder is the code that is here."""
    return _read(folder).get("code") == _digest(code)


def contents(folder: Path) -> str:
    """SHA-256 over the relative path and the bytes of every file in the folder but the note."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != NOTE:
            digest.update(f"{path.relative_to(folder)}\0{_digest(path)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(folder: Path) -> dict[str, str]:
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
