"""Read `artifacts/promoted.json`: which archives to serve, and under which names."""

import json
from dataclasses import dataclass
from pathlib import Path

from serving import ServingError


@dataclass(frozen=True)
class Model:
    """One name on the server. The same archive may have several names."""

    name: str
    method: str
    version: str
    archive: Path
    sha256: str


@dataclass(frozen=True)
class Promoted:
    """All names to serve; the champion of a data set is called `<dataset>-encoder`."""

    dataset: str
    champion: str
    models: tuple[Model, ...]

    @property
    def encoder(self) -> str:
        """The name under which the champion is served."""
        return f"{self.dataset}-encoder"


def read(path: Path) -> Promoted:
    """Read the file; archives are relative to the folder that holds `artifacts/`.

    Raises ServingError when nothing is promoted or the file is not what the pipeline writes.
    """
    root = path.resolve().parent.parent
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        models = tuple(Model(**model | {"archive": root / model["archive"]}) for model in given["models"])
        if not models:
            raise ValueError("it names no model")
        return Promoted(given["dataset"], given["champion"], models)
    except FileNotFoundError as error:
        raise ServingError(f"Nothing is promoted yet: {path} is missing. Run `make demo` first.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ServingError(
            f"The file {path} is not what the pipeline writes ({type(error).__name__}: {error}). Run `make demo`."
        ) from error
