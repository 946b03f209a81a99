"""The folder in which a server runs: its settings, tokens, model store and log."""

import json
import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from serving import ServingError

Api = Literal["inference", "management", "API"]  # the last is the key that makes new tokens


@dataclass(frozen=True)
class Runtime:
    """The paths of a running server; the same for the server, the deployer and the client."""

    folder: Path = Path(__file__).resolve().parents[1] / "run"

    @property
    def config(self) -> Path:
        """The settings that the server was started with."""
        return self.folder / "config.properties"

    @property
    def keys(self) -> Path:
        """TorchServe's tokens, mode 0600; there only while the server runs."""
        return self.folder / "key_file.json"

    @property
    def models(self) -> Path:
        """The model store: archives, each named by its SHA-256."""
        return self.folder / "models"

    @property
    def served(self) -> Path:
        """The versions that are served now and before; see serving/rollout/served_file.py."""
        return self.folder / "served.json"

    @property
    def metrics(self) -> Path:
        """The workers' counters; see serving/worker/metrics.py."""
        return self.folder / "metrics"

    @property
    def log(self) -> Path:
        """The output of the server and its workers. At 8 MB it becomes `torchserve.log.1`, and so on to 3."""
        return self.folder / "torchserve.log"

    @property
    def output(self) -> Path:
        """The output of Java itself: why it did not start, or why it ended."""
        return self.folder / "java.log"

    @property
    def lock(self) -> Path:
        """Held by the running server, see serving/host/lock.py."""
        return self.folder / "lock"

    @property
    def pid(self) -> int:
        """The process that ends the server when it is ended: the watchdog that started it; 0 when none ever ran."""
        return int(self.lock.read_text(encoding="utf-8") or 0)

    def address(self, api: str) -> str:
        """`http://host:port` of an interface: inference, management, metrics, ready.

        Raises ServingError when no server runs.
        """
        return settings(self._read(self.config))[f"{api}_address"]

    def token(self, api: Api) -> str:
        """The token that goes after `Authorization: Bearer`. Raises ServingError when no server runs."""
        return self._keys()[api]["key"]

    def _keys(self) -> dict[str, dict[str, str]]:
        end = time.monotonic() + 1
        while True:
            try:
                return dict(json.loads(self._read(self.keys)))
            except ValueError:  # TorchServe is just writing it
                if time.monotonic() > end:
                    raise ServingError(f"The file {self.keys} cannot be read. Restart the server.") from None
                time.sleep(0.01)

    def expiry(self) -> datetime:
        """When the first of the two tokens will be refused. Raises ServingError when no server runs."""
        keys = self._keys()
        return min(datetime.fromisoformat(keys[api]["expiration time"]) for api in ("inference", "management"))

    def tail(self, lines: int = 15) -> str:
        """The last lines of the logs, for an error's message."""
        texts = [
            path.read_text(encoding="utf-8", errors="replace") for path in (self.output, self.log) if path.exists()
        ]
        return "\n".join("".join(texts).splitlines()[-lines:])

    def read(self, path: Path) -> str:
        """The text of one of its files. Raises OSError."""
        return path.read_text(encoding="utf-8")

    def _read(self, path: Path) -> str:
        # The server removes its tokens when it ends, so they show whether one runs. Its settings stay.
        if not self.keys.exists():
            raise ServingError(f"No server runs in {self.folder}. Start one with `make serve`.")
        return self.read(path)


def write(path: Path, text: str) -> None:
    """Replace a small file completely: on a full disk, the file stays as it was."""
    part = path.with_name(f"{path.name}.part")
    part.touch(mode=0o600)  # it may hold tokens
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def settings(text: str) -> dict[str, str]:
    """A properties file's keys and values; as in Java, the last of two equal keys counts."""
    pairs = [line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return {key.strip(): value.strip() for key, value in pairs}
