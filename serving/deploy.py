"""Make a running server serve what is promoted; harmless when done twice."""

import hashlib
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import requests

from serving import ServingError, promoted
from serving.client import Client
from serving.promoted import Model
from serving.runtime import Runtime

# A grey PNG of one pixel: the smallest real question.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a 0000000d 49484452 00000001 00000001 0800000000 3a7e9b55"
    "0000000a 49444154 789c6368000000820081 77cd72b6 00000000 49454e44 ae426082"
)


def deploy(path: Path, runtime: Runtime | None = None, deadline: float = 90) -> None:
    """Register every model of `promoted.json` at `path` and wait until each answers a real request.

    `runtime` is the running server's folder: its address, management token and model store. A name that
    already serves the same archive stays, one that serves another is replaced. `deadline` is in seconds, for
    one model. Raises ServingError, which names the model and the log; all archives are checked before the
    first is touched.
    """
    runtime = runtime or Runtime()
    models = promoted.read(path).models
    for model in models:
        check(model)
    management = Management(runtime, deadline)
    # Two at a time: a worker's start is a second of importing torch on one core, then mostly waiting.
    with ThreadPoolExecutor(2) as pool:
        for line in pool.map(management.serve, models):
            print(line, file=sys.stderr, flush=True)


def check(model: Model) -> None:
    """Raises ServingError unless the archive is the file that was promoted."""
    if not model.archive.is_file():
        raise ServingError(f"{model.name} cannot be served: {model.archive} is missing; run `make demo`.")
    with model.archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != model.sha256:
        raise ServingError(
            f"{model.name} cannot be served: {model.archive} is not the file that was promoted "
            f"(SHA-256 {digest[:12]}… instead of {model.sha256[:12]}…); run `make demo`."
        )


class Management:
    """TorchServe's management interface, for one deployment."""

    def __init__(self, runtime: Runtime, deadline: float) -> None:
        self.runtime = runtime
        self.deadline = deadline
        self.address = runtime.address("management")
        self.headers = {"Authorization": f"Bearer {runtime.token('management')}"}
        self.client = Client.of(runtime)
        self.client.timeout = 10

    def serve(self, model: Model) -> str:
        """Put one model on the server, wait until it answers, and say so."""
        begin = time.monotonic()
        file = f"{model.sha256}.mar"
        found = self._call("GET", model)
        served = found.json()[0] if found.ok else None
        if served and served["modelUrl"] == file:
            self._wait_until_ready(model, model.name)
            return f"{model.name}: version {model.version} ({model.method}) was served already"
        if served and served["modelVersion"] == model.version:
            # A version can stand there once only: this one is away for as long as a worker needs to start.
            self._expect(self._call("DELETE", model), model)
            served = None
        self._store(model, self.runtime.models / file)
        wanted = {"url": file, "model_name": model.name, "initial_workers": "1", "synchronous": "true"}
        try:
            self._expect(self._call("POST", model, query=wanted), model)
            self._wait_until_ready(model, f"{model.name}/{model.version}")
        except ServingError:
            # Beside another version TorchServe keeps one that cannot load, and would refuse its successor.
            self._call("DELETE", model, f"/{model.version}")
            raise
        if served:
            old = served["modelVersion"]
            self._expect(self._call("PUT", model, f"/{model.version}/set-default"), model)
            # Requests that wait for a version are never answered once it is deleted. It answers in order:
            # when it has answered one more, those before are done. A dead one keeps nobody waiting.
            with suppress(ServingError):
                self.client.embed(f"{model.name}/{old}", PIXEL)
            self._expect(self._call("DELETE", model, f"/{old}"), model)
        seconds = time.monotonic() - begin
        return f"{model.name}: version {model.version} ({model.method}) serves after {seconds:.1f} s"

    def _store(self, model: Model, place: Path) -> None:
        # A copy by its digest: the server itself then knows what it serves, and later changes of the artifact
        # do not reach it. Written beside and renamed, since two names may bring the same archive at once.
        part = place.with_name(f"{model.name}.part")
        shutil.copyfile(model.archive, part)
        os.replace(part, place)

    def _call(
        self, method: str, model: Model, rest: str = "", query: dict[str, str] | None = None
    ) -> requests.Response:
        url = f"{self.address}/models" + ("" if query else f"/{model.name}{rest}")
        try:
            waits = (5, self.deadline)
            return requests.request(method, url, params=query, headers=self.headers, timeout=waits)
        except requests.Timeout as error:
            raise self._failed(model, f"no answer in {self.deadline:g} s") from error
        except requests.RequestException as error:
            raise self._failed(model, f"no server answers at {self.address}") from error

    def _expect(self, response: requests.Response, model: Model) -> None:
        if not response.ok:
            raise self._failed(model, str(response.json().get("message", response.reason)))

    def _wait_until_ready(self, model: Model, name: str) -> None:
        # TorchServe calls itself healthy while no worker answers: only an embedding is a proof.
        end = time.monotonic() + self.deadline
        while True:
            try:
                self.client.embed(name, PIXEL)
                return
            except ServingError as error:
                if time.monotonic() > end:
                    raise self._failed(model, str(error)) from error
            time.sleep(0.1)

    def _failed(self, model: Model, reason: str) -> ServingError:
        return ServingError(f"{model.name} cannot be served: {reason.rstrip('.')}; see {self.runtime.log}.")
