"""A front end that is out of memory ends, and is started anew."""

import socket
from contextlib import suppress
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import numpy as np
import pytest

from serving.client import Client
from serving.deploy import deploy
from serving.host.runtime import Runtime
from serving.torchserve import ports
from tests.serving.conftest import MakeArchive, entry, expected, picture, promote, ready, until, watched

NAME = "digits-encoder"
# Bodies are collected beside the heap, whose limit TorchServe survives, and then copied into it.
SMALL = "\nvmargs=-Xmx64m -XX:MaxDirectMemorySize=1g -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError\n"


def test_a_front_end_without_memory_ends_and_comes_back(
    tmp_path: Path, make_archive: MakeArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ports.free() + SMALL
    monkeypatch.setattr(ports, "free", lambda: lines)
    with watched(tmp_path / "run") as server:
        deploy(promote(tmp_path, entry(NAME, make_archive("1"), "1")), server.runtime)
        until(lambda: ready(server).ok)
        process = server.process
        fill(server.runtime, [bytes(20_000_000)] * 12)
        assert process.wait(60) == 3  # Java's status for it
        until(lambda: server.process is not process and ready(server).ok)
        png, pixels = picture(4)
        np.testing.assert_allclose(
            Client.of(server.runtime).embed(NAME, png), expected(pixels, 1), rtol=1e-4, atol=1e-5
        )


def fill(runtime: Runtime, bodies: list[bytes]) -> None:
    """Hand over all bodies at once, each whole."""
    place, token = urlsplit(runtime.address("inference")), runtime.token("inference")
    head = f"POST /predictions/{NAME} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: "

    def send(body: bytes) -> None:
        with suppress(OSError), socket.create_connection((place.hostname, place.port), timeout=30) as connection:
            connection.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)
            connection.recv(100)

    threads = [Thread(target=send, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
