"""The second server among connections that say nothing: they end, and neither the log nor good requests notice."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from serving.client import Client
from serving.fastapi import connections
from serving.host.runtime import Runtime
from tests.serving.conftest import ROOT, MakeArchive, application, entry, expected, picture, promote


@contextmanager
def connected(address: str, n: int = 1) -> Iterator[list[socket.socket]]:
    place = urlsplit(address)
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection((place.hostname, place.port), timeout=60)) for _ in range(n)
        ]


def check(runtime: Runtime) -> None:
    png, pixels = picture(1)
    np.testing.assert_allclose(Client.of(runtime).embed("digits-encoder", png), expected(pixels), rtol=1e-5)


@pytest.mark.parametrize("sent", [b"", b"POST /pred", b"POST / HTTP/1.1\r\nHost: x\r\n"])
def test_who_sends_no_head_is_hung_up_on(second: Runtime, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connections, "HEAD", 0.2)
    with connected(second.address("inference")) as (connection,):
        connection.sendall(sent)
        assert connection.recv(1) == b""


def test_a_connection_that_rests_between_two_requests_is_hung_up_on_where_the_second_never_comes(
    second: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD", 0.5)
    place = urlsplit(second.address("inference"))
    with closing(HTTPConnection(place.netloc, timeout=60)) as connection:
        for _ in range(2):
            connection.request("GET", "/ping", headers={"Authorization": f"Bearer {second.token('inference')}"})
            assert connection.getresponse().read() == b'{"status":"Healthy"}'
        connection.sock.sendall(b"GET /pi")
        assert connection.sock.recv(1) == b""


def test_who_comes_first_after_the_folder_was_removed_is_answered(tmp_path: Path, make_archive: MakeArchive) -> None:
    with application(tmp_path, entry("digits-encoder", make_archive())) as runtime:
        client = Client(runtime.address("inference"), runtime.token("inference"), retries=0)
        shutil.rmtree(runtime.folder)
        png, pixels = picture(1)
        np.testing.assert_allclose(client.embed("digits-encoder", png), expected(pixels), rtol=1e-5)


def test_more_connections_than_files_leave_the_log_empty_and_good_requests_are_answered(
    tmp_path: Path, make_archive: MakeArchive
) -> None:
    path, runtime = promote(tmp_path, entry("digits-encoder", make_archive())), Runtime(tmp_path / "run")
    command = [sys.executable, "-m", "serving.app", "--promoted", str(path), "--run", str(runtime.folder)]
    limited = ["sh", "-c", 'ulimit -n 96; exec "$@"', "sh", *command, "--port", "0"]
    with (
        (tmp_path / "errors").open("w") as errors,
        subprocess.Popen(limited, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, env=os.environ) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        address = runtime.address("inference")
        check(runtime)
        with connected(runtime.address("inference"), 20):  # of 24
            check(runtime)
        with connected(runtime.address("inference"), 100) as crowd:
            assert crowd[-1].recv(100).startswith(b"HTTP/1.1 503 ")
        check(runtime)
        process.terminate()
    assert (tmp_path / "errors").read_text() == ""
    # No name: which models can be served is known only once they are loaded.
    assert line == f"Serving at {address}. Ctrl-C stops the server.\n"
