"""Load the models of the FastAPI server. Each archive is loaded once, even when it has several names."""

import copy
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from serving import ServingError
from serving.host.promoted import Model
from serving.rollout import archive
from serving.rollout.admission import admit
from serving.worker.encoder import Encoder
from serving.worker.metrics import Meter


def load(models: Sequence[Model], threads: int, stack: ExitStack) -> tuple[dict[str, Encoder], list[str]]:
    """The encoders by their names, and why the other models are not served.

    threads: per run of an encoder. The unpacked files stay until the stack is closed. Raises ServingError when no model
    can be served.
    """
    loaded: dict[str, tuple[Encoder, Path]] = {}  # by the archive's SHA-256
    found: dict[str, Encoder] = {}
    faults = []
    for model in models:
        try:
            if model.sha256 not in loaded:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                archive.unpack(admit(model, model.version, folder), folder)
                loaded[model.sha256] = Encoder(folder, threads), folder
            encoder, folder = loaded[model.sha256]
            # A copy shares the network, but counts under its own name.
            found[model.name] = copy.copy(encoder)
            found[model.name].meter = Meter(model.name, encoder.version, folder / "drift.npz")
        except ServingError as error:
            faults.append(str(error))
        except Exception as error:  # NumPy, ONNX Runtime and the decoder raise anything on a wrong archive
            faults.append(f"The model {model.name} cannot be served from {os.path.relpath(model.archive)}: {error!r}.")
    if not found:
        raise ServingError(faults[0])
    return found, faults
