"""nginx as serving/nginx.conf sets it, before a real TorchServe: strangers and slow bodies do not reach the server."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import requests

from benchmarks.endpoint.processes import java
from serving.client import Client
from serving.host.free_ports import free_ports
from serving.host.runtime import Runtime
from tests.serving.conftest import ROOT, expected, listens, picture, until
from tests.serving.test_contract import check

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
PNG, PIXELS = picture(1)


@dataclass(frozen=True)
class Front:
    """nginx before a server."""

    address: str
    behind: Runtime

    def ask(self, token: str | None = None, **given: object) -> requests.Response:
        headers = {"Authorization": f"Bearer {token or self.behind.token('inference')}"}
        url = f"{self.address}/predictions/digits-encoder"
        answer = requests.post(url, headers=headers, timeout=60, **given)  # type: ignore[arg-type]
        check(answer)
        return answer

    def begin(self, token: str, stack: ExitStack) -> socket.socket:
        """A request of 10 MB of which 1 KB is sent; open until the stack is left."""
        place = urlsplit(self.address)
        connection = stack.enter_context(socket.create_connection((place.hostname, place.port), timeout=60))
        head = f"POST /predictions/digits-encoder HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        connection.sendall(f"{head}Content-Length: 10000000\r\n\r\n".encode() + bytes(1 << 10))
        return connection

    def reached(self) -> int:
        """Connections that the server behind has at its port of inference."""
        port = urlsplit(self.behind.address("inference")).port
        found = psutil.Process(java(self.behind)).net_connections("inet")
        return sum(each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED for each in found)


@pytest.fixture(scope="module")
def front(server: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with nginx_before(urlsplit(server.address("inference")).netloc, tmp_path_factory.mktemp("nginx")) as address:
        yield Front(address, server)


@contextmanager
def nginx_before(behind: str, folder: Path) -> Iterator[str]:
    """The address of an nginx that passes requests on to `behind` (host:port)."""
    (port,) = free_ports(1)
    text = (ROOT / "serving/nginx.conf").read_text()
    (folder / "nginx.conf").write_text(
        text.replace("127.0.0.1:8090", f"127.0.0.1:{port}").replace("127.0.0.1:8080", behind)
    )
    assert NGINX is not None
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    command += ["-g", "user root;"] if os.getuid() == 0 else []  # else nobody could not read the test's folder
    with (folder / "errors").open("w") as errors, subprocess.Popen(command, stderr=errors) as nginx:
        until(lambda: listens(f"http://127.0.0.1:{port}") or nginx.poll() is not None)
        assert nginx.poll() is None, (folder / "errors").read_text()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            nginx.terminate()


def test_good_requests_pass_as_they_are(front: Front) -> None:
    client = Client(front.address, front.behind.token("inference"))
    images = [picture(seed) for seed in range(100)]
    answers = list(client.embed_many("digits-encoder", [png for png, _ in images], batch=7))
    np.testing.assert_allclose(answers, [expected(pixels) for _, pixels in images], rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
    found = list(client.embed_many("digits-encoder", [PNG[:-30]] * 64, batch=64))  # no header that nginx would refuse
    assert {str(each) for each in found} == {"The image: This image cannot be used: image file is truncated."}


def test_what_is_refused_has_the_status_of_the_contract(front: Front) -> None:
    assert front.ask("wrong", data=PNG).status_code == 403
    assert front.ask(data=b"words").status_code == 415
    assert front.ask(data=bytes(21 << 20)).status_code == 413
    assert requests.get(f"{front.address}/models", timeout=60).status_code == 404


def test_questions_for_the_token_share_a_connection_and_name_the_host(tmp_path: Path) -> None:
    seen: list[tuple[str, int, str | None]] = []

    class Behind(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            seen.append((self.path, self.client_address[1], self.headers["Host"]))
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Behind) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        with nginx_before(f"127.0.0.1:{server.server_port}", tmp_path) as address, requests.Session() as session:
            for _ in range(10):
                assert session.post(f"{address}/predictions/x", data=PNG, timeout=60).ok
        server.shutdown()
    paths, connections, hosts = zip(*seen, strict=True)
    assert paths == ("/ping", "/predictions/x") * 10
    assert len(set(connections)) <= 2
    assert set(hosts) == {"127.0.0.1"}


def test_a_stranger_is_refused_before_the_body_is_there(front: Front) -> None:
    with ExitStack() as stack:
        for stranger in [front.begin("wrong", stack) for _ in range(50)]:
            assert stranger.recv(1 << 12).startswith(b"HTTP/1.1 403 ")
        assert front.ask(data=PNG).status_code == 200


def test_slow_bodies_wait_in_the_front_and_one_address_has_no_more_than_its_share(front: Front) -> None:
    with ExitStack() as stack:
        slow = [front.begin(front.behind.token("inference"), stack) for _ in range(60)]
        np.testing.assert_allclose(front.ask(data=PNG).json()["embeddings"], [expected(PIXELS)], rtol=1e-5)
        assert front.reached() <= 33  # nginx keeps 32 connections for all requests
        more = [front.begin(front.behind.token("inference"), stack) for _ in range(10)]
        assert more[-1].recv(1 << 12).startswith(b"HTTP/1.1 503 ")
        slow[0].close()
    until(lambda: front.ask(data=PNG).status_code == 200)
