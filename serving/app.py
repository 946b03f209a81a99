"""Serve the promoted encoders with FastAPI instead of TorchServe: `python -m serving.app`. Ctrl-C stops it.

It reads the same archives and gives the same answers. One process has two threads per model that run the network.
Requests that arrive meanwhile share the next batch.
"""

import argparse
import asyncio
import hmac
import json
import logging
import math
import os
import secrets
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
import yaml
from fastapi import FastAPI, HTTPException, Response
from fastapi import Request as Asked
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Route
from uvicorn.supervisors import Multiprocess

from serving import ServingError
from serving.fastapi.batching import RUNS, Batcher
from serving.fastapi.body import SETTINGS, TIMEOUT, read
from serving.fastapi.connections import Connection, waiting
from serving.host import lock, promoted
from serving.host.command import Parser, command
from serving.host.promoted import Model
from serving.host.runtime import Runtime
from serving.rollout.loading import load
from serving.worker.encoder import Request
from serving.worker.metrics import FOLDER, exposition
from serving.worker.payload import TENSOR

HERE = Path(__file__).resolve().parent
QUEUE = int(SETTINGS["job_queue_size"])
# Broken requests must not fill the log.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


def create(models: Sequence[Model], runtime: Runtime, threads: int = 1) -> FastAPI:
    """The application for these models. It answers clients that send the runtime's token.

    threads: per run of a model. A model whose archive fails is left out and named on stderr. Raises ServingError when
    all fail.
    """
    # Read once, before the first request: somebody may remove the file later.
    token = runtime.token("inference").encode()
    stack = ExitStack()
    encoders, faults = load(models, threads, stack)
    for fault in faults:
        print(fault, file=sys.stderr, flush=True)
    served = {m.name: Batcher(m, encoders[m.name], QUEUE, TIMEOUT) for m in models if m.name in encoders}
    shared = Path(os.environ[FOLDER]) if FOLDER in os.environ else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with stack:
            tasks = [asyncio.create_task(each.run()) for each in served.values()]
            yield
            for task in tasks:
                task.cancel()

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)

    @app.exception_handler(StarletteHTTPException)
    async def refuse(asked: Asked, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)

    def find(name: str, version: str | None) -> Batcher:
        found = served.get(name)
        if found is None or version not in (None, found.model.version):
            raise HTTPException(404, f"Model not found: {name}{f', version {version}' if version else ''}.")
        return found

    def authorise(asked: Asked) -> None:
        scheme, _, given = asked.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), token)
        if scheme.lower() != "bearer" or not right:
            raise HTTPException(401, "The token is missing or wrong.", {"WWW-Authenticate": "Bearer"})

    @app.get("/ping")
    async def ping(asked: Asked) -> dict[str, str]:
        authorise(asked)
        return {"status": "Healthy"}

    @app.get("/ready")
    async def ready() -> dict[str, bool]:
        for one in served.values():
            await one.ask(Request([bytes(math.prod(one.encoder.shape))], TENSOR))
        return {"ready": True}

    @app.get("/metrics")
    async def metrics(asked: Asked) -> Response:
        authorise(asked)
        return Response(exposition(shared), media_type=CONTENT_TYPE_LATEST)

    @app.get("/models")
    async def describe(asked: Asked) -> list[dict[str, Any]]:
        authorise(asked)
        return [
            {"name": name, "method": one.model.method, "version": one.model.version, "dim": one.encoder.dim,
             "size": one.encoder.preprocess.size, "sha256": one.model.sha256}
            for name, one in served.items()
        ]  # fmt: skip

    async def predict(asked: Asked) -> Response:
        authorise(asked)
        one = find(asked.path_params["name"], asked.path_params.get("version"))
        answer = await one.ask(await read(asked))
        return Response(answer.body, answer.status, answer.headers, answer.content_type)

    # Starlette's own routes: FastAPI's handling of a function's parameters takes longer than a small network.
    for path in ("/predictions/{name}", "/predictions/{name}/{version}"):
        app.router.routes.insert(0, Route(path, predict, methods=["POST", "PUT"]))

    @app.get("/openapi.json")
    async def openapi() -> Any:
        return yaml.safe_load((HERE / "openapi.yaml").read_text(encoding="utf-8"))

    return app


class Key:
    """Keeps a token in the runtime's folder while the server runs. Raises ServingError when a server runs already."""

    def __init__(self, runtime: Runtime, address: str) -> None:
        self.runtime, self.address = runtime, address

    def __enter__(self) -> None:
        self.lock = lock.take(self.runtime)
        self.runtime.config.write_text(f"inference_address={self.address}\n", encoding="utf-8")
        with open(
            os.open(self.runtime.keys, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            json.dump({"inference": {"key": secrets.token_urlsafe()}}, file)

    def __exit__(self, *error: object) -> None:
        self.runtime.keys.unlink(missing_ok=True)
        self.lock.close()


def configured(app: Any, **more: Any) -> uvicorn.Config:
    """uvicorn's settings: only failures are logged, and connections are limited."""
    return uvicorn.Config(
        app, http=Connection, backlog=waiting(), log_level="error", access_log=False, server_header=False, **more
    )


def application() -> FastAPI:
    """For uvicorn's processes, which read their settings from the environment."""
    models = promoted.read(Path(os.environ["ENCODER_PROMOTED"])).models
    threads = len(os.sched_getaffinity(0)) // (RUNS * int(os.environ["ENCODER_WORKERS"]))
    return create(models, Runtime(Path(os.environ["ENCODER_RUN"])), max(1, threads))


def main() -> None:
    """Serve what is promoted until Ctrl-C."""
    parser = Parser(prog="python -m serving.app", description=__doc__)
    parser.add_argument(
        "--port",
        type=port,
        default=8080,
        help="the port of 127.0.0.1 to listen on; 0 takes any free one (default: 8080)",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes, each with all models (default: 1)")
    parser.add_argument("--promoted", type=Path, default=Path("artifacts/promoted.json"), metavar="FILE",
                        help="what to serve (default: artifacts/promoted.json)")  # fmt: skip
    parser.add_argument("--run", type=Path, default=Runtime().folder, metavar="FOLDER", help="the folder for the token")
    given = parser.parse_args()
    os.environ |= {"ENCODER_PROMOTED": str(given.promoted), "ENCODER_RUN": str(given.run),
                   "ENCODER_WORKERS": str(given.workers)}  # fmt: skip
    config = configured("serving.app:application", factory=True, port=given.port, workers=given.workers)
    server = uvicorn.Server(config)
    with command():
        promoted.read(given.promoted)  # if nothing is promoted, fail before anything starts
        with listening(given.port) as own, \
             Key(Runtime(given.run), address := f"http://127.0.0.1:{own.getsockname()[1]}"):  # fmt: skip
            # asyncio sets this only for a socket that names its protocol. Without it, a body waited 40 ms.
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # The line names no model: they load only now, and a bad archive is left out.
            print(f"Serving at {address}. Ctrl-C stops the server.", flush=True)
            if given.workers > 1:
                shutil.rmtree(folder := Runtime(given.run).metrics, ignore_errors=True)
                folder.mkdir()
                os.environ[FOLDER] = str(folder)  # for the processes that start below
                Multiprocess(config, [own]).run()
            else:
                server.run([own])


def listening(port: int) -> socket.socket:
    """A socket on this port of 127.0.0.1. Raises ServingError."""
    try:
        return socket.create_server(("127.0.0.1", port), backlog=waiting())
    except OSError as error:
        raise ServingError(f"Port {port} cannot be used: {error.strerror}. Choose another with --port.") from None


def port(text: str) -> int:
    """The type of --port. argparse adds the name of the option to the message."""
    if not 0 <= (number := int(text)) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is no port. Allowed: 0 to 65535.")
    return number


if __name__ == "__main__":
    main()
