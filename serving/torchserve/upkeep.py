"""Restore files that somebody removes from a running server's folder (`make clean`), and report a full disk.

Small files are remembered as text. Archives are held open, because an open file can be read after it was removed.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from serving import ServingError
from serving.host import lock
from serving.host.disk_space import lacking
from serving.host.runtime import Runtime, write
from serving.rollout import served_file

ROOM = 16 << 20  # bytes: a worker's counts, new tokens and some lines of the log


@dataclass(frozen=True)
class Kept(Runtime):
    """A running server's folder. For a missing or empty file, `read` returns the text that was read last."""

    texts: dict[Path, str] = field(default_factory=dict, compare=False)

    def read(self, path: Path) -> str:
        with suppress(OSError):
            if text := super().read(path):
                return text
        if path in self.texts:
            return self.texts[path]
        raise FileNotFoundError(path)

    def _read(self, path: Path) -> str:
        return self.read(path)  # a key file that is missing does not mean that the server is gone


class Upkeep:
    """Watches the folder for the watchdog. `say` prints a line.

    `faults`: a sentence for each problem that could not be corrected, by its subject.
    """

    def __init__(self, runtime: Runtime, say: Callable[[str], None]) -> None:
        self.texts: dict[Path, str] = {}
        self.runtime, self.say = Kept(runtime.folder, self.texts), say
        self.folders = (runtime.models, runtime.metrics)
        self.archives: dict[Path, IO[bytes]] = {}
        self.lock: IO[str] | None = None  # replaces the server's lock when that was removed
        self.missing: list[Path] = []
        self.faults: dict[str, str] = {}

    def look(self) -> None:
        """Remember the files that are there, restore those that are missing, and report new problems."""
        faults = {}
        before, self.missing = self.missing, []
        try:
            self.missing = self._missing()
            # Wait until nothing more disappears, so that files do not come back while somebody removes the folder.
            if self.missing and self.missing == before:
                self._mend()
                self.missing = []
            if not self.missing:
                self._note()
            if lack := lacking(self.runtime.folder, ROOM):
                faults["disk"] = (
                    f"{lack} The server still answers, but new workers count no requests, and nothing can be deployed."
                )
        except (OSError, ServingError) as error:
            if self.missing == before:
                faults["folder"] = (
                    f"The files in {self.runtime.folder} cannot be restored ({error}). The server still answers."
                )
        for about in faults.keys() - self.faults.keys():
            self.say(faults[about])
        self.faults = faults

    def close(self) -> None:
        for file in (*self.archives.values(), self.lock):
            if file:
                file.close()

    def _missing(self) -> list[Path]:
        files = [*self.texts]
        if self.runtime.served.exists():  # the deployer removes archives too: those that served.json no longer names
            files += sorted(self.archives.keys() & self._wanted())
        missing = [path for path in self.folders if not path.is_dir()]
        missing += [path for path in files if not path.is_file()]
        own = self.runtime.lock
        if not own.is_file() or not own.stat().st_size:  # a full disk leaves it empty
            missing.append(own)
        return missing

    def _mend(self) -> None:
        """Restore what is missing; the lock first, so that no other server takes the folder meanwhile."""
        if self.runtime.lock in self.missing:
            if self.lock:
                self.lock.close()
            self.lock = lock.take(self.runtime)
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
        for path, text in self.texts.items():
            if path in self.missing:
                write(path, text)
        for path in self.archives.keys() & self._wanted():
            if not path.is_file():
                part = path.with_suffix(".part")
                self.archives[path].seek(0)
                with part.open("wb") as file:
                    shutil.copyfileobj(self.archives[path], file)
                os.replace(part, path)
        self.say(f"Somebody removed {', '.join(path.name for path in self.missing)} while the server runs. Restored.")

    def _note(self) -> None:
        for path in (self.runtime.config, self.runtime.keys, self.runtime.served):
            if path.exists() and (text := path.read_text(encoding="utf-8")):
                self.texts[path] = text
        wanted = self._wanted()
        for path in self.archives.keys() - wanted:
            self.archives.pop(path).close()
        for path in wanted - self.archives.keys():
            self.archives[path] = path.open("rb")

    def _wanted(self) -> set[Path]:
        """The archives of what is served and what a rollback would serve."""
        return {self.runtime.models / version.file for _, version in served_file.read(self.runtime).all()}
