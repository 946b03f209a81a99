"""`served.json` in a server's folder: the versions that it serves, and those from before the last change.

The deployer writes it when a change is complete. A rollback swaps the two. After a crash, the watchdog deploys the same
versions again.
"""

import json
import os
from dataclasses import asdict, dataclass, field

from serving import ServingError
from serving.host.runtime import Runtime


@dataclass(frozen=True)
class Version:
    """One version of a name: its label on the server, the method, and its file in the model store."""

    version: str
    method: str
    file: str  # `<sha256>.mar`


Table = dict[str, Version]  # by the name on the server


@dataclass(frozen=True)
class Served:
    """The default versions now and before; the server has both loaded."""

    now: Table = field(default_factory=dict)
    before: Table = field(default_factory=dict)

    def all(self) -> set[tuple[str, Version]]:
        """Every version that is loaded on the server, with its name."""
        return {*self.now.items(), *self.before.items()}


def read(runtime: Runtime) -> Served:
    """The versions that the server in this folder serves; none before the first deployment. Raises ServingError."""
    try:
        given = json.loads(runtime.read(runtime.served))
        return Served(*({name: Version(**v) for name, v in given[key].items()} for key in ("now", "before")))
    except FileNotFoundError:
        return Served()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServingError(f"The file {runtime.served} cannot be read ({error}). Restart the server.") from error


def write(runtime: Runtime, served: Served) -> None:
    """Replace the file, atomically."""
    part = runtime.served.with_suffix(".part")
    part.write_text(json.dumps(asdict(served), indent=2) + "\n", encoding="utf-8")
    os.replace(part, runtime.served)
