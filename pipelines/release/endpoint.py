"""The last step of the flow: deploy the promoted encoders to TorchServe, and compare them with torch on real images."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np

from data.decoding.decode import Preprocess
from data.shards import Prepared
from models import saved
from pipelines.project import stage
from pipelines.project.stage import StageError
from pipelines.release.precision_check import COSINE
from pipelines.saving.pretrained import Pretrained
from serving import ServingError
from serving.client import Client
from serving.deploy import deploy
from serving.host import promoted
from serving.host.runtime import Runtime
from serving.torchserve.process import Server

IMAGES = 8
VERIFIED = stage.SCRATCH / "endpoint.json"


@contextmanager
def server() -> Iterator[Runtime]:
    """The server of `make serve` if it runs; otherwise a new one on free ports, until the block ends."""
    running = Runtime()
    try:
        running.address("inference")
    except ServingError:
        with Server(Runtime(stage.SCRATCH / "serving"), free_ports=True) as own:
            yield own.runtime
    else:
        yield running


def curl(dataset: str) -> str:
    """The command that asks the champion for an embedding."""
    python = os.path.relpath(sys.executable)
    return (
        f'curl -H "Authorization: Bearer $({python} -m serving.client --token)" '
        f"-T IMAGE http://127.0.0.1:8080/predictions/{dataset}-encoder"
    )


def verified(log: Path) -> str:
    """Deploy what is promoted, compare its answers with torch's, and remember that. Returns the figure of it.

    log: gets the lines of the deployment, and an answer. Raises StageError and ServingError.
    """
    VERIFIED.unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with server() as runtime, log.open("w", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        deploy(stage.PROMOTED, runtime)
        answer, cosine = check(runtime)
        print(answer)
    VERIFIED.write_text(json.dumps({"of": deployed()}), encoding="utf-8")
    return f"answers match torch: smallest cosine {cosine:.6f}"


def is_verified() -> bool:
    """Whether `verified` saw these very archives with this very code."""
    try:
        return bool(json.loads(VERIFIED.read_text(encoding="utf-8"))["of"] == deployed())
    except (OSError, ValueError, KeyError, ServingError):  # never checked, or what was served is gone
        return False


def deployed() -> dict[str, str]:
    """What decides the endpoint's answers: the promoted archives, the serving code and the installed packages."""
    archives = [stage.artifact(model.method, "encoder.mar") for model in promoted.read(stage.PROMOTED).models]
    files = [stage.PROMOTED, Path("requirements.lock"), *archives, *sorted(Path("serving").rglob("*.py"))]
    return {str(file): f"{file.stat().st_size} bytes, {file.stat().st_mtime_ns}" for file in files}


def check(runtime: Runtime) -> tuple[str, float]:
    """Ask every endpoint for real test images and compare with torch.

    Returns the champion's answer for one image, shortened, and the smallest cosine of all. Raises StageError.
    """
    prepared = Prepared(stage.PREPARED)
    rows = prepared.rows("test")[:: max(1, len(prepared.rows("test")) // IMAGES)][:IMAGES]
    paths = [stage.RAW / prepared.manifest.name / prepared.path(int(row)) for row in rows]
    client = Client.of(runtime)
    smallest = 1.0
    answer = ""
    listed = promoted.read(stage.PROMOTED)
    for model in listed.models:
        trained = Pretrained.read(stage.artifact(model.method, "checkpoint.pt"))
        preprocess = Preprocess.from_json(trained.spec["preprocess"])
        pixels = np.stack([preprocess(path.read_bytes()) for path in paths])
        ours = saved.Predictor(trained.encoder()).predict(pixels)
        theirs = np.stack([np.asarray(v) for v in client.embed_many(model.name, paths)])
        cosine = (ours * theirs).sum(1) / (np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1))
        precision = json.loads(stage.artifact(model.method, "parity.json").read_text(encoding="utf-8"))["precision"]
        if not cosine.min() >= COSINE[precision]:
            raise StageError(
                f"The endpoint {model.name} and torch give different embeddings: cosine {cosine.min():.4f}. "
                f"Allowed: {COSINE[precision]} or more. Run the flow again, which deploys the encoder again."
            )
        smallest = min(smallest, float(cosine.min()))
        if model.name == listed.encoder:
            start = ", ".join(f"{v:.3f}" for v in theirs[0][:4])
            described = {"image": str(paths[0]), "model": model.name, "version": model.version, "dim": theirs.shape[1]}
            answer = f'{json.dumps(described, ensure_ascii=False)[:-1]}, "embedding": [{start}, …]}}'
    return answer, smallest
