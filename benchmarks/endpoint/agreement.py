"""`python -m benchmarks.endpoint.agreement FOLDER`: compare all ways to an encoder's vectors.

In a finished project: the champion by torch, ONNX Runtime, TorchServe, the FastAPI application, the bulk command and
`mlflow models serve` of both registered models, on the same photographs. All are compared with torch.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import requests
from numpy.typing import NDArray

from benchmarks.endpoint.throughput import second
from benchmarks.report import markdown
from data.decoding.decode import Preprocess
from models import saved
from pipelines.project import stage
from pipelines.registry.mlflow_store import connect
from pipelines.saving.pretrained import Pretrained
from serving import ServingError
from serving.client import Client
from serving.deploy import deploy
from serving.host import promoted
from serving.host.command import Parser
from serving.host.free_ports import free_ports
from serving.host.runtime import Runtime
from serving.torchserve.process import Server
from serving.worker.encoder import session

Vectors = NDArray[np.float32]


def photographs(folder: Path, n: int) -> list[Path]:
    """n files, evenly spaced among all of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [files[i] for i in np.linspace(0, len(files) - 1, min(n, len(files))).astype(int)]


def by_clients(name: str, files: list[Path], scratch: Path) -> Iterator[tuple[str, Vectors]]:
    """Vectors by TorchServe and by the FastAPI application."""

    def ask(runtime: Runtime) -> Vectors:
        return np.stack([np.asarray(vector) for vector in Client.of(runtime).embed_many(name, files)])

    with Server(Runtime(scratch / "first"), free_ports=True) as server:
        deploy(stage.PROMOTED, server.runtime)
        yield "TorchServe", ask(server.runtime)
    with second(scratch / "second", stage.PROMOTED) as runtime:
        yield "FastAPI", ask(runtime)


def by_bulk(files: list[Path], scratch: Path) -> Vectors:
    """Vectors by `python -m serving.embed`, through links to the files."""
    (links := scratch / "photographs").mkdir()
    for i, file in enumerate(files):
        (links / f"{i:06d}{file.suffix}").symlink_to(file.resolve())
    out = scratch / "vectors.parquet"
    command = [sys.executable, "-m", "serving.embed", str(links), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return np.stack(pq.read_table(out)["embedding"].to_numpy())


@contextmanager
def mlflow_serves(model: str) -> Iterator[str]:
    """The address of `mlflow models serve`, which finds its own server in the path of this environment."""
    port = str(free_ports(1)[0])
    command = ["mlflow", "models", "serve", "-m", f"models:/{model}@champion", "--env-manager", "local", "-p", port]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        command, env=os.environ | {"PATH": path}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
    ) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            while process.poll() is None and not pings(address):
                time.sleep(0.2)
            if process.poll() is not None:
                sys.exit(
                    f"MLflow's server ended with status {process.returncode}. Run it to see why: {' '.join(command)}."
                )
            yield f"{address}/invocations"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def pings(address: str) -> bool:
    try:
        return requests.get(f"{address}/ping", timeout=5).ok
    except requests.ConnectionError:
        return False


def by_mlflow(dataset: str, pixels: NDArray[np.uint8]) -> Iterator[tuple[str, Vectors]]:
    """Vectors by both registered models, 50 images per request."""
    for model in (f"{dataset}-encoder", f"{dataset}-encoder-onnx"):
        with mlflow_serves(model) as address:
            found = []
            for i in range(0, len(pixels), 50):
                answer = requests.post(address, json={"inputs": pixels[i : i + 50].tolist()}, timeout=300).json()
                given = answer["predictions"]
                found += given["embeddings"] if isinstance(given, dict) else given
        yield f"mlflow models serve, {model}", np.asarray(found, np.float32)


def main() -> None:
    parser = Parser(prog="python -m benchmarks.endpoint.agreement", description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder of photographs")
    parser.add_argument("--images", type=int, default=200, help="photographs to compare (default: 200)")
    given = parser.parse_args()
    connect()  # sets the address of MLflow's store, for child processes too
    listed = promoted.read(stage.PROMOTED)
    champion = next(model.method for model in listed.models if model.name == listed.encoder)
    trained = Pretrained.read(stage.artifact(champion, "checkpoint.pt"))
    preprocess = Preprocess.from_json(trained.spec["preprocess"])
    files = photographs(given.folder, given.images)
    pixels = np.stack([preprocess(file.read_bytes()) for file in files])
    ours = saved.Predictor(trained.encoder()).predict(pixels)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        network = session(stage.artifact(champion, "encoder.onnx").parent)
        ways = {"ONNX Runtime": network.run(None, {"images": pixels})[0]}
        ways |= by_clients(listed.encoder, files, scratch)
        ways["bulk command"] = by_bulk(files, scratch)
        ways |= by_mlflow(listed.dataset, pixels)
    rows = []
    for way, theirs in ways.items():
        cosine = (ours * theirs).sum(1) / (np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1))
        largest = float(np.abs(theirs - ours).max())
        shares = {"largest difference": f"{largest:.1e}", "of the largest entry": f"{largest / np.abs(ours).max():.1e}"}
        rows.append({"way": way} | shares | {"smallest cosine": f"{cosine.min():.7f}"})
    print(f"{listed.encoder} ({champion}), {len(files)} images, {ours.shape[1]} numbers each, beside torch\n")
    print(markdown(rows))


if __name__ == "__main__":
    try:
        main()
    except ServingError as error:
        sys.exit(str(error))
