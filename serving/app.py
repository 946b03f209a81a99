"""The second server: the same archives and answers without TorchServe. `python -m serving.app` until Ctrl-C.

One process, two threads a model that run the network; requests that arrive meanwhile share their next batches.
"""

import argparse
import asyncio
import fcntl
import hmac
import json
import logging
import math
import os
import secrets
import shutil
import socket
import sys
import tempfile
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
from starlette.requests import ClientDisconnect
from uvicorn.supervisors import Multiprocess

from serving import ServingError, archive, promoted
from serving.admission import admit
from serving.batching import RUNS, Served
from serving.core import Encoder, Request
from serving.metrics import FOLDER, Meter, exposition
from serving.promoted import Model
from serving.runtime import Runtime, settings
from serving.wire import MAX_IMAGES, TENSOR, mime

HERE = Path(__file__).resolve().parent
SETTINGS = settings((HERE / "config.properties").read_text())
MAX_BYTES, QUEUE, TIMEOUT = (
    int(SETTINGS[key]) for key in ("max_request_size", "job_queue_size", "default_response_timeout")
)
# Who sends broken requests shall not fill the log.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


def create(models: Sequence[Model], runtime: Runtime, threads: int = 1) -> FastAPI:
    """The application for these models; who knows the runtime's token is admitted.

    threads: of each of a model's runs. At its start raises ServingError when an archive is not what was promoted.
    """
    served: dict[str, Served] = {}
    shared = Path(os.environ[FOLDER]) if FOLDER in os.environ else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            for model in models:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                archive.unpack(admit(model, model.version, folder), folder)
                encoder = Encoder(folder, threads)
                encoder.meter = Meter(model.name, encoder.version, folder / "drift.npz")
                served[model.name] = Served(model, encoder, QUEUE, TIMEOUT)
            tasks = [asyncio.create_task(each.run()) for each in served.values()]
            yield
            for task in tasks:
                task.cancel()

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)

    @app.exception_handler(StarletteHTTPException)
    async def refuse(asked: Asked, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)

    def find(name: str, version: str | None) -> Served:
        found = served.get(name)
        if found is None or version not in (None, found.model.version):
            raise HTTPException(404, f"Model not found: {name}{f', version {version}' if version else ''}.")
        return found

    def authorise(asked: Asked) -> None:
        given = asked.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {runtime.token('inference')}".encode()):
            raise HTTPException(401, "The token is missing or wrong.", {"WWW-Authenticate": "Bearer"})

    @app.get("/ping")
    async def ping() -> dict[str, str]:
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

    @app.api_route("/predictions/{name}", methods=["POST", "PUT"])
    @app.api_route("/predictions/{name}/{version}", methods=["POST", "PUT"])
    async def predict(asked: Asked, name: str, version: str | None = None) -> Response:
        authorise(asked)
        one = find(name, version)
        answer = await one.ask(await read(asked))
        return Response(answer.body, answer.status, answer.headers, answer.content_type)

    @app.get("/openapi.json")
    async def openapi() -> Any:
        return yaml.safe_load((HERE / "openapi.yaml").read_text())

    return app


async def read(asked: Asked) -> Request:
    """The body, no larger and no slower than is allowed. Raises HTTPException."""
    names = ("content-type", "accept", "x-normalize", "x-probe")
    content_type, *rest = (asked.headers.get(name, "") for name in names)
    form = mime(content_type) == "multipart/form-data"
    try:
        parts = await asyncio.wait_for(fields(asked) if form else whole(asked), TIMEOUT)
    except TimeoutError:
        raise HTTPException(408, f"The body did not come within {TIMEOUT} s.") from None
    except ClientDisconnect:  # nobody hears it, but it is no failure that the log should have
        raise HTTPException(400, "The body ended too early.") from None
    return Request(parts, content_type, *rest)


async def whole(asked: Asked) -> list[bytes]:
    body = bytearray()
    async for chunk in asked.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"The body is larger than {MAX_BYTES:,} bytes.")
    return [bytes(body)]


async def fields(asked: Asked) -> list[bytes]:
    """Of a form."""
    if int(asked.headers.get("content-length", MAX_BYTES + 1)) > MAX_BYTES:
        raise HTTPException(413, f"The body is larger than {MAX_BYTES:,} bytes, or does not say how large.")
    async with asked.form(max_files=MAX_IMAGES + 1, max_fields=MAX_IMAGES + 1, max_part_size=MAX_BYTES) as form:
        return [value.encode() if isinstance(value, str) else await value.read() for _, value in form.multi_items()]


class Key:
    """A token in the runtime's folder, for as long as the server runs. Raises ServingError when one runs already."""

    def __init__(self, runtime: Runtime, address: str) -> None:
        self.runtime, self.address = runtime, address

    def __enter__(self) -> None:
        folder = self.runtime.folder
        folder.mkdir(parents=True, exist_ok=True)
        self.log = self.runtime.log.open("a")
        try:
            fcntl.flock(self.log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ServingError(f"A server runs in {folder} already; stop it first.") from None
        self.runtime.config.write_text(f"inference_address={self.address}\n")
        with open(os.open(self.runtime.keys, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"inference": {"key": secrets.token_urlsafe()}}, file)

    def __exit__(self, *error: object) -> None:
        self.runtime.keys.unlink(missing_ok=True)
        self.log.close()


def application() -> FastAPI:
    """For uvicorn's processes, which are told by the environment."""
    models = promoted.read(Path(os.environ["ENCODER_PROMOTED"])).models
    threads = len(os.sched_getaffinity(0)) // (RUNS * int(os.environ["ENCODER_WORKERS"]))
    return create(models, Runtime(Path(os.environ["ENCODER_RUN"])), max(1, threads))


def main() -> None:
    """Serve what is promoted until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m serving.app", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with every model")
    parser.add_argument("--promoted", type=Path, default=Path("artifacts/promoted.json"), metavar="FILE")
    parser.add_argument("--run", type=Path, default=Runtime().folder, metavar="FOLDER", help="for the token")
    given = parser.parse_args()
    os.environ |= {"ENCODER_PROMOTED": str(given.promoted), "ENCODER_RUN": str(given.run),
                   "ENCODER_WORKERS": str(given.workers)}  # fmt: skip
    config = uvicorn.Config("serving.app:application", factory=True, port=given.port, workers=given.workers,
                            log_level="error", access_log=False, server_header=False)  # fmt: skip
    server = uvicorn.Server(config)
    try:
        name = promoted.read(given.promoted).encoder
        with socket.create_server(("127.0.0.1", given.port), backlog=2048) as own, \
             Key(Runtime(given.run), address := f"http://127.0.0.1:{own.getsockname()[1]}"):  # fmt: skip
            # asyncio does so only where a socket names its protocol: an answer's body waited 40 ms behind its head.
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            print(f"serving at {address}/predictions/{name}; Ctrl-C stops the server", flush=True)
            if given.workers > 1:
                shutil.rmtree(folder := Runtime(given.run).metrics, ignore_errors=True)
                folder.mkdir()
                os.environ[FOLDER] = str(folder)  # for the processes that are to start
                Multiprocess(config, [own]).run()
            else:
                server.run([own])
    except ServingError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"Port {given.port} cannot be used: {error.strerror}.")


if __name__ == "__main__":
    main()
