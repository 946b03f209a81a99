"""A tiny network with a known answer, packed into archives, and one real TorchServe for the session."""

import hashlib
import io
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import onnx
import pytest
import requests
import uvicorn
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from serving.app import Key, configured, create
from serving.deploy import deploy
from serving.host import promoted
from serving.host.runtime import Runtime
from serving.rollout import archive
from serving.torchserve.process import Server
from serving.watchdog import Watchdog
from serving.worker.drift import Sketch, sketch

ROOT = Path(__file__).resolve().parents[2]
SIZE, DIM = 4, 5
WEIGHTS = np.random.default_rng(0).normal(size=(3 * SIZE * SIZE, DIM)).astype(np.float32)

Promote = Callable[..., Path]
MakeArchive = Callable[..., Path]


def network(path: Path, version: str = "3", **metadata: str) -> Path:
    """flatten → float → / 255 → × WEIGHTS · version, so that versions differ in their answers."""
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["unit"]),
        helper.make_node("MatMul", ["unit", "weights"], ["embeddings"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(255), "scale"),
        numpy_helper.from_array(WEIGHTS * np.float32(version), "weights"),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 3, SIZE, SIZE])
    embeddings = helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", DIM])
    graph = helper.make_graph(nodes, "tiny", [images], [embeddings], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    spec = {"size": SIZE, "filter": "bilinear", "resize": "shorter side", "crop": "centre", "range": None}
    about = {"dataset": "digits", "method": "simclr", "version": version, "dim": DIM}
    helper.set_model_props(model, {"preprocess": json.dumps(spec), "model": json.dumps(about)} | metadata)
    onnx.save(model, path)
    return path


def unpacked(folder: Path, version: str = "3", **metadata: str) -> Path:
    """What of an archive an encoder is loaded from."""
    network(folder / "encoder.onnx", version, **metadata)
    return folder


def picture(seed: int) -> tuple[bytes, NDArray[np.uint8]]:
    """A PNG of the network's own size, so that resizing does nothing, and its pixels (4, 4, 3)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    return png.getvalue(), pixels


def wide(seed: int) -> tuple[bytes, NDArray[np.uint8]]:
    """A grey PNG of 16 bits with values from 684 to 1194, and what they are in 8 bits (4, 4, 3)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 1), np.uint8)
    png = io.BytesIO()
    Image.fromarray(684 + 2 * pixels[..., 0].astype(np.uint16)).save(png, "PNG")
    return png.getvalue(), pixels.repeat(3, axis=-1)


def bomb(png: bytes) -> bytes:
    """The same file, whose header claims 65,536 × 65,536 pixels, with a valid checksum."""
    head = png[:16] + (1 << 16).to_bytes(4, "big") * 2 + png[24:29]
    return head + zlib.crc32(head[12:]).to_bytes(4, "big") + png[33:]


def expected(pixels: NDArray[np.uint8], version: int = 3) -> NDArray[np.float32]:
    """What the network answers, from NumPy: rows are channel-major."""
    flat = pixels.transpose(2, 0, 1).reshape(-1) / 255
    return np.asarray(flat @ WEIGHTS * version, np.float32)


def golden(path: Path, version: str = "3") -> Path:
    """A golden.npz of three images, from NumPy."""
    pixels = [picture(seed)[1] for seed in range(3)]
    images = np.stack([each.transpose(2, 0, 1) for each in pixels])
    embeddings = np.stack([expected(each, int(version)) for each in pixels])
    np.savez(path, images=images, embeddings=embeddings, tolerance=np.float32(1e-4))
    return path


@cache
def training() -> Sketch:
    """Of the embeddings of random images; a window is full after 20."""
    seen = np.stack([expected(picture(seed)[1]) for seed in range(300)])
    return sketch(seen[:200], seen[200:], window=20)


def entry(name: str, path: Path, version: str = "3", **changed: Any) -> dict[str, Any]:
    """One model of promoted.json."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    model = {"name": name, "method": "simclr", "version": version, "archive": str(path), "sha256": digest}
    return model | changed


def promote(folder: Path, *models: dict[str, Any]) -> Path:
    """Write `folder`/artifacts/promoted.json."""
    path = folder / "artifacts" / "promoted.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"dataset": "digits", "champion": "simclr", "models": models}))
    return path


@pytest.fixture(scope="session")
def make_archive(tmp_path_factory: pytest.TempPathFactory) -> MakeArchive:
    """Pack the tiny network of a version into an archive, with the golden images of that version or another."""

    def make(version: str = "3", of: str | None = None, **metadata: str) -> Path:
        folder = tmp_path_factory.mktemp("archive")
        out = folder / "encoder.mar"
        onnx = network(folder / "any.onnx", version, **metadata)
        training().save(folder / "drift.npz")
        more = [golden(folder / "golden.npz", of or version), folder / "drift.npz"]
        archive.build(onnx, out, "digits", version, more)
        return out

    return make


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, make_archive: MakeArchive) -> Iterator[Runtime]:
    """A running TorchServe that serves one archive under two names."""
    folder = tmp_path_factory.mktemp("server")
    mar = make_archive()
    with Server(Runtime(folder / "run"), free_ports=True) as started:
        deploy(promote(folder, entry("digits-encoder", mar), entry("digits-simclr", mar)), started.runtime)
        yield started.runtime


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory, make_archive: MakeArchive) -> Iterator[Runtime]:
    """The second server with the same archive under the same names."""
    mar = make_archive()
    with application(
        tmp_path_factory.mktemp("second"), entry("digits-encoder", mar), entry("digits-simclr", mar)
    ) as it:
        yield it


@contextmanager
def application(folder: Path, *entries: dict[str, Any]) -> Iterator[Runtime]:
    """The second server with these models."""
    models = promoted.read(promote(folder, *entries)).models
    runtime = Runtime(folder / "run")
    with socket.create_server(("127.0.0.1", 0)) as own, Key(runtime, f"http://127.0.0.1:{own.getsockname()[1]}"):
        app = uvicorn.Server(configured(create(models, runtime)))
        running = threading.Thread(target=app.run, args=([own],))
        running.start()
        while not app.started and running.is_alive():
            running.join(0.02)
        yield runtime
        app.should_exit = True
        running.join()


@contextmanager
def watched(folder: Path) -> Iterator[Server]:
    """A server under a watchdog, without a model."""
    with Server(Runtime(folder), free_ports=True) as server:
        dog = Watchdog(server)
        watching = threading.Thread(target=dog.run)
        watching.start()
        try:
            until(lambda: listens(server.runtime.address("ready")))
            yield server
        finally:
            dog.ended.set()
            watching.join()


def ready(server: Server, path: str = "ready") -> requests.Response:
    return requests.get(f"{server.runtime.address('ready')}/{path}", timeout=20)


def listens(address: str) -> bool:
    place = urlsplit(address)
    with suppress(ConnectionRefusedError), socket.create_connection((place.hostname, place.port), timeout=20):
        return True
    return False


def until(true: Callable[[], bool]) -> None:
    """Wait for it, for as long as a busy machine needs; what never comes fails the test."""
    end = time.monotonic() + 150
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
