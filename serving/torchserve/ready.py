"""`GET /ready` and `/metrics`: a small server beside TorchServe, for load balancers and monitoring."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST

Report = dict[str, dict[str, Any]]  # by name: ready, since, and what else there is to say


@contextmanager
def serve(
    address: str, report: Callable[[], Report], metrics: Callable[[], bytes], faults: Callable[[], list[str]] = list
) -> Iterator[None]:
    """Answer at `address` (`http://host:port`) while the block runs.

    `/ready` is 200 when every name is ready, and 503 when one is not or when there is none. Its JSON has the report,
    and faults that do not stop answers, such as a full disk. `/metrics` is for Prometheus. `/ping` is 200 while this
    process lives.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 5  # s; a client that sends nothing is disconnected

        def do_GET(self) -> None:
            if self.path == "/ping":
                self._answer(200, {"status": "alive"})
            elif self.path == "/metrics":
                self._send(200, CONTENT_TYPE_LATEST, metrics())
            elif self.path == "/ready":
                models = report()
                ready = bool(models) and all(model["ready"] for model in models.values())
                self._answer(200 if ready else 503, {"ready": ready, "models": models, "faults": faults()})
            else:
                self._answer(404, {"error": "There are /ready, /metrics and /ping here."})

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            self._send(status, "application/json", json.dumps(content, indent=2).encode() + b"\n")

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: a balancer asks every second."""

    class Server(ThreadingTCPServer):  # http.server's own would look its name up in the network
        allow_reuse_address = True
        daemon_threads = True

    place = urlsplit(address)
    with Server((place.hostname or "", place.port or 80), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
