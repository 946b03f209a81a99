"""The folder in which a server runs: its settings, tokens, model store and log."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving import ServingError

Api = Literal["inference", "management"]


@dataclass(frozen=True)
class Runtime:
    """Where a running server is found; the same for the server, the deployer and the client."""

    folder: Path = Path(__file__).resolve().parent / "run"

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
    def log(self) -> Path:
        """All that the server and its workers print."""
        return self.folder / "torchserve.log"

    @property
    def pid(self) -> Path:
        """The process of the server that was started last."""
        return self.folder / "pid"

    def address(self, api: Api) -> str:
        """`http://host:port` of one of the server's interfaces. Raises ServingError when no server runs."""
        return settings(self._read(self.config))[f"{api}_address"]

    def token(self, api: Api) -> str:
        """What goes after `Authorization: Bearer`. Raises ServingError when no server runs."""
        return str(json.loads(self._read(self.keys))[api]["key"])

    def tail(self, lines: int = 15) -> str:
        """The last lines of the log, for an error's message."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _read(self, path: Path) -> str:
        # The tokens go when the server does, so they tell whether one runs; its settings stay behind.
        if not self.keys.exists():
            raise ServingError(f"No server runs in {self.folder}; start one with `make serve`.")
        return path.read_text()


def settings(text: str) -> dict[str, str]:
    """A properties file's keys and values; as in Java, the last of two equal keys counts."""
    pairs = [line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return {key.strip(): value.strip() for key, value in pairs}
