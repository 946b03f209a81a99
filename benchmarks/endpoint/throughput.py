"""`make bench-serving`: the throughput of TorchServe, of the FastAPI server, and without any server.

All use the same images, threads and encoder in one run. They take turns, and figures are medians of the rounds. The
client runs on the same cores as the server. Weights are random, because they do not change the speed.
"""

import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.endpoint import load
from benchmarks.report import markdown
from data.decoding.decode import Preprocess
from models.encoders import encoder
from models.encoders.resnet import ResNetParams
from models.encoders.vit import ViTParams
from models.saved import Predictor
from pipelines.export import export
from serving.deploy import deploy
from serving.host.command import Parser
from serving.host.runtime import Runtime
from serving.rollout import archive
from serving.torchserve.process import Server
from serving.worker.encoder import Encoder

CONNECTIONS = (1, 8, 32)
IMAGES = 64
# name → the encoder, the side of its images, and the kind of file that is sent
CASES: dict[str, tuple[encoder.EncoderParams, int, str]] = {
    "vit_small/16, 224 px, JPEG": (ViTParams(arch="vit_small", patch_size=16), 224, "JPEG"),
    "vit_tiny/4, 32 px, PNG": (ViTParams(arch="vit_tiny", patch_size=4), 32, "PNG"),
    "resnet10 w16, 16 px, PNG": (ResNetParams(arch="resnet10", width=16, stem="small/2"), 16, "PNG"),
}


def pictures(size: int, kind: str) -> list[bytes]:
    """Files of smooth noise, a quarter larger than the encoder wants them."""
    generator, side, files = np.random.default_rng(0), size * 5 // 4, []
    for _ in range(IMAGES):
        coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8))
        file = io.BytesIO()
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(file, kind)
        files.append(file.getvalue())
    return files


def packed(
    of: encoder.EncoderParams, size: int, out: Path, version: str = "1", preprocess: Preprocess | None = None
) -> Path:
    """An archive of this encoder with random weights, which differ by version."""
    torch.manual_seed(int(version))
    network = of.build(size, (0.5,) * 3, (0.25,) * 3)
    about = {"dataset": "bench", "method": "random", "version": version}
    spec: Any = {"image_size": size, "preprocess": (preprocess or Preprocess(size)).to_json()}
    export(network, spec, about, out.with_suffix(".onnx"))
    images = np.random.default_rng(0).integers(0, 256, (2, 3, size, size), np.uint8)
    golden = out.parent / "golden.npz"
    np.savez(golden, images=images, embeddings=Predictor(network).predict(images), tolerance=np.float32(1e-4))
    archive.build(out.with_suffix(".onnx"), out, "bench", version, [golden])
    return out


def direct(one: Encoder, files: list[bytes], seconds: float, cores: int) -> float:
    """Images per second: decode and run chunk after chunk, on as many threads as there are cores."""
    begin = time.perf_counter()

    def work(start: int) -> int:
        done = 0
        while time.perf_counter() < begin + seconds:
            images = [one.preprocess(files[(start + done + k) % len(files)]) for k in range(one.chunk)]
            done += len(one.run(np.stack(images)))
        return done

    with ThreadPoolExecutor(cores) as pool:
        done = sum(pool.map(work, range(0, IMAGES, IMAGES // cores)))
    return done / (time.perf_counter() - begin)


@contextmanager
def second(folder: Path, promoted: Path, workers: int = 1) -> Iterator[Runtime]:
    """The FastAPI application, in so many processes."""
    runtime = Runtime(folder)
    folder.mkdir()
    command = [sys.executable, "-m", "serving.app", "--promoted", str(promoted), "--run", str(folder), "--port", "0"]
    command += ["--workers", str(workers)]
    with (
        (folder / "errors.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield runtime
        finally:
            process.terminate()


def measure(name: str, rounds: int, seconds: float, workers: int) -> list[dict[str, Any]]:
    """One row per number of connections. workers: processes of the FastAPI application."""
    of, size, kind = CASES[name]
    files, cores = pictures(size, kind), len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        mar = packed(of, size, folder / "encoder.mar")
        promoted = promote(folder, mar)
        (folder / "unpacked").mkdir()
        archive.unpack(mar, folder / "unpacked")
        one = Encoder(folder / "unpacked")
        first = stack.enter_context(Server(Runtime(folder / "first"), free_ports=True)).runtime
        deploy(promoted, first)
        other = stack.enter_context(second(folder / "second", promoted, workers))
        rows = []
        for runtime in (first, other):  # Java is slow until it has compiled itself
            ask(runtime, files, max(CONNECTIONS), seconds)
        for connections in CONNECTIONS:
            bare: list[float] = []
            found: dict[str, list[load.Load]] = {"TorchServe": [], "FastAPI": []}
            for _ in range(rounds):
                bare.append(direct(one, files, seconds, cores))
                for loads, runtime in zip(found.values(), (first, other), strict=True):
                    loads.append(ask(runtime, files, connections, seconds))
            row: dict[str, Any] = {"encoder": name, "connections": connections}
            row["direct, images/s"] = statistics.median(bare)
            for key, loads in found.items():
                row[f"{key}, images/s"] = statistics.median(each.rate for each in loads)
                row[f"{key}, of direct"] = statistics.median(x.rate / b for x, b in zip(loads, bare, strict=True))
                for p in (50, 95, 99):
                    row[f"{key}, p{p}, ms"] = statistics.median(each.percentile(p) for each in loads)
            rows.append(row)
    return rows


def promote(folder: Path, mar: Path, version: str = "1") -> Path:
    path = folder / "artifacts" / "promoted.json"
    path.parent.mkdir(exist_ok=True)
    digest = hashlib.sha256(mar.read_bytes()).hexdigest()
    entry = {"name": "bench-encoder", "method": "random", "version": version, "archive": str(mar), "sha256": digest}
    path.write_text(json.dumps({"dataset": "bench", "champion": "random", "models": [entry]}))
    return path


def ask(of: Runtime, files: list[bytes], connections: int, seconds: float) -> load.Load:
    """A round; every answer must be 200."""
    url = f"{of.address('inference')}/predictions/bench-encoder"
    found = load.run(url, [load.message(url, of.token("inference"), file) for file in files], connections, seconds)
    assert set(found.statuses) == {200}, found.statuses
    return found


def main() -> None:
    parser = Parser(prog="python -m benchmarks.endpoint.throughput", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round (default: 3)")
    parser.add_argument("--workers", type=int, default=1, help="processes of the FastAPI application")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    given = parser.parse_args()
    rows = [row for name in given.cases for row in measure(name, given.rounds, given.seconds, given.workers)]
    print(markdown(rows))


if __name__ == "__main__":
    main()
