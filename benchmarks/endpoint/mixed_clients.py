"""Clients of every kind in parallel: good, bad, huge, slow and aborted requests, and a ledger of their outcomes.

A good request goes through the session of `serving.client.Client`, with its retries. It is lost when that gives up, or
returns anything but 200. Every vector is compared with what ONNX Runtime gives for the version that the answer names,
and that version with the one that was served when the request was sent.
"""

import json
import socket
import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import requests
from numpy.typing import NDArray

from benchmarks.endpoint import request_samples
from benchmarks.endpoint.load import Connection, message
from benchmarks.endpoint.request_samples import Truth
from serving import ServingError
from serving.client import UNKNOWN, Client
from serving.host.runtime import Runtime
from serving.worker.payload import BYTES, JSON

# kind → clients, and the s each waits between two requests
CLIENTS = {"good": (4, 0.01), "bad": (1, 0.05), "huge": (1, 1.0), "slow": (2, 0.2), "aborted": (1, 0.1)}
DROPS = 10  # of a slow body
MOST = 8  # images per good request


@dataclass
class Ledger:
    """What came of the requests: (kind, outcome) → how many, the good ones' latencies in s, and what went wrong."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class Crowd:
    """Asks from entering to leaving. `serves` is the version that must answer, None while that is being changed.

    clients: by kind, which is the name of a method, how many and the s that each waits between two requests.
    """

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        truth: Truth,
        serves: str | None,
        clients: Mapping[str, tuple[int, float]] = CLIENTS,
    ) -> None:
        self.runtime, self.truth, self.serves = runtime, truth, serves
        self.changes = 0  # of what is served, begun
        self.ledger, self.lock, self.ended = Ledger(), Lock(), Event()
        self.url = f"{runtime.address('inference')}/predictions/{name}"
        self.threads = [
            Thread(target=self.one, args=(kind, getattr(self, kind), pause, seed))
            for kind, (n, pause) in clients.items()
            for seed in range(n)
        ]
        self.bodies = {"bad": request_samples.bad(truth), "huge": request_samples.huge()}

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def one(self, kind: str, ask: Callable[[Client, np.random.Generator], str], pause: float, seed: int) -> None:
        """A client: asks, and waits."""
        client, generator = Client.of(self.runtime), np.random.default_rng(seed)
        while not self.ended.wait(pause):
            try:
                outcome = ask(client, generator)
            except (ServingError, requests.RequestException, OSError, TimeoutError) as error:
                outcome = self.lose(kind, type(error).__name__)
            except Exception:  # the answer is not what the contract says
                outcome = "wrong"
                with self.lock:
                    self.ledger.wrong.append(f"{kind}: {traceback.format_exc(limit=-1)}")
            with self.lock:
                self.ledger.outcomes[kind, outcome] += 1

    def lose(self, kind: str, outcome: str) -> str:
        with self.lock:
            self.ledger.lost.append(f"{kind}: {outcome}")
        return outcome

    def headers(self, **more: str | None) -> dict[str, Any]:
        return {"Authorization": f"Bearer {self.runtime.token('inference')}"} | {
            key.replace("_", "-"): value for key, value in more.items()
        }

    def post(self, client: Client, path: str = "", **sent: Any) -> requests.Response:
        """Post as the client does: with the new token when the old one stopped working."""
        token, headers = client.token, sent.pop("headers")
        while True:
            sent["headers"] = headers | {"Authorization": f"Bearer {token}"}
            answer = client.session.post(self.url + path, timeout=60, **sent)
            if answer.status_code not in UNKNOWN or not (token := client.newer(token)):
                return answer

    def right(self, rows: list[int], version: str, given: NDArray[np.float32], was: tuple[str | None, int]) -> None:
        """Note a wrong vector, and a version that was not served at any time since the request was sent."""
        fault = self.truth.fault(rows, version, given)
        if was[0] not in (None, version) and was == (self.serves, self.changes):
            fault = fault or f"version {version} answers where {was[0]} is served"
        if fault:
            with self.lock:
                self.ledger.wrong.append(fault)

    def good(self, client: Client, generator: np.random.Generator) -> str:
        was, begin = (self.serves, self.changes), time.perf_counter()
        rows = generator.integers(0, len(self.truth.files), generator.integers(1, MOST + 1)).tolist()
        body, content_type = request_samples.written(self.truth, rows, str(generator.choice(request_samples.FORMS)))
        rows = rows[:1] if content_type == BYTES else rows
        accept = str(generator.choice([JSON, BYTES]))
        answer = self.post(client, headers={"Accept": accept, "Content-Type": content_type}, **body)
        if not answer.ok:
            return self.lose("good", str(answer.status_code))
        self.ledger.latencies.append(time.perf_counter() - begin)
        self.check(rows, answer, was)
        return "200"

    def check(self, rows: list[int], answer: requests.Response, was: tuple[str | None, int]) -> None:
        if answer.headers["Content-Type"] == BYTES:
            given = np.frombuffer(answer.content, "<f4").reshape(len(rows), -1)
            self.right(rows, answer.headers["x-version"], given, was)
        else:
            embedded = answer.json()
            self.right(rows, embedded["version"], np.asarray(embedded["embeddings"], np.float32), was)

    def bad(self, client: Client, generator: np.random.Generator) -> str:
        return self.refused("bad", client, generator)

    def huge(self, client: Client, generator: np.random.Generator) -> str:
        return self.refused("huge", client, generator)

    def refused(self, kind: str, client: Client, generator: np.random.Generator) -> str:
        status, path, content_type, body = self.bodies[kind][generator.integers(len(self.bodies[kind]))]
        answer = self.post(client, path, data=body, headers={"Content-Type": content_type})
        if answer.ok:
            raise ValueError(f"{body[:20]!r} was answered")
        got = str(answer.status_code)
        return got if answer.status_code == status else self.lose(kind, f"{got} instead of {status}")

    def slow(self, client: Client, generator: np.random.Generator) -> str:
        was, row = (self.serves, self.changes), int(generator.integers(len(self.truth.files)))
        token = self.runtime.token("inference")
        one, whole = self.connection(row)
        for drop in np.array_split(np.frombuffer(whole, np.uint8), DROPS):
            one.socket.sendall(drop.tobytes())
            time.sleep(0.2)
        while (answer := one.receive()) is None:
            pass
        one.socket.close()
        if answer[0] in UNKNOWN and self.runtime.token("inference") != token:
            return "the token changed"
        if answer[0] != requests.codes.ok:
            return self.lose("slow", str(answer[0]))
        embedded = json.loads(answer[1])
        self.right([row], embedded["version"], np.asarray(embedded["embeddings"], np.float32), was)
        return "200"

    def aborted(self, client: Client, generator: np.random.Generator) -> str:
        one, whole = self.connection(0)
        half = bool(generator.integers(2))
        one.socket.sendall(whole[: len(whole) // 2] if half else whole)
        if half:  # closing is a reset then
            one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.socket.close()
        return "half, then reset" if half else "whole, then gone"

    def connection(self, row: int) -> tuple[Connection, bytes]:
        """An open connection, and a request of this image to send over it."""
        place = urlsplit(self.url)
        one = Connection(str(place.hostname), int(place.port or 80))
        one.socket.settimeout(60)
        return one, message(self.url, self.runtime.token("inference"), self.truth.files[row], JSON)
