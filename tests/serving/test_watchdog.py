"""What is killed, stopped or wedged comes back by itself, and serves what it served."""

import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

from serving import ServingError, admission, archive, served, watchdog
from serving.client import Client
from serving.deploy import deploy, rollback
from serving.management import Management
from serving.promoted import Model
from serving.server import Server
from tests.serving.conftest import MakeArchive, entry, expected, picture, promote, ready, until, watched

NAME = "digits-encoder"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without a model."""
    with watched(tmp_path_factory.mktemp("watched") / "run") as started:
        yield started


@pytest.fixture(scope="module")
def server(started: Server, tmp_path_factory: pytest.TempPathFactory, make_archive: MakeArchive) -> Server:
    """It was given version 1, then 2, and was rolled back: version 1 is what it must serve, whatever happens."""
    assert ready(started).status_code == 503  # nothing is served
    folder = tmp_path_factory.mktemp("promoted")
    for version in ("1", "2"):
        deploy(promote(folder, entry(NAME, make_archive(version), version)), started.runtime)
    rollback(started.runtime)
    until(lambda: ready(started).ok and ready(started).json()["models"][NAME]["version"] == "1")
    return started


def workers(server: Server, status: str = "") -> set[int]:
    standing = Management(server.runtime).versions(NAME)["1"]["workers"]
    return {worker["pid"] for worker in standing if status in worker["status"]}


def until_two(server: Server) -> set[int]:
    """The two workers, once both have loaded: TorchServe names the dead until it starts another."""
    until(lambda: len([pid for pid in workers(server, "READY") if psutil.pid_exists(pid)]) == 2)
    return workers(server)


def check(server: Server, name: str = NAME, factor: int = 1) -> None:
    png, pixels = picture(4)
    vector = Client.of(server.runtime).embed(name, png)
    np.testing.assert_allclose(vector, expected(pixels, factor), rtol=1e-4, atol=1e-5)


def answers(server: Server) -> bool:
    """Without much patience: TorchServe forgets what it was just handing to a worker that died."""
    client = Client.of(server.runtime)
    client.timeout = 2
    with suppress(ServingError):
        client.embed(NAME, picture(4)[0])
        return True
    return False


def test_ready_names_each_model_and_ping_only_the_process(server: Server) -> None:
    (model,) = ready(server).json()["models"].items()
    assert model[0] == NAME
    assert (model[1]["ready"], model[1]["version"]) == (True, "1")
    assert ready(server, "ping").json() == {"status": "alive"}
    assert ready(server, "models").status_code == 404


def test_what_the_workers_counted_is_told_to_prometheus(server: Server) -> None:
    Client.of(server.runtime).embed(NAME, picture(1)[0])
    told = ready(server, "metrics").text
    assert re.search(rf'encoder_requests_total{{model="{NAME}",status="200",version="1"}} [1-9]', told)
    assert re.search(rf'encoder_inference_seconds_count{{model="{NAME}",version="1"}} [1-9]', told)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_stopped_is_replaced_while_the_other_answers(
    server: Server, number: signal.Signals
) -> None:
    pid, other = until_two(server)
    os.kill(pid, number)
    until(lambda: answers(server))
    until(lambda: not psutil.pid_exists(pid))
    assert other in until_two(server)
    assert ready(server).ok
    check(server)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_without_workers_it_is_not_ready_until_others_answer(server: Server, number: signal.Signals) -> None:
    pids = until_two(server)
    for pid in pids:
        os.kill(pid, number)
    until(lambda: ready(server).status_code == 503)
    assert ready(server).json()["models"][NAME]["reason"]
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    until(lambda: ready(server).ok and answers(server))


def test_workers_are_replaced_by_as_many(server: Server) -> None:
    before = until_two(server)
    Management(server.runtime).renew(NAME, "1")
    until(lambda: not before & workers(server))
    until_two(server)
    until(lambda: ready(server).ok and answers(server))


WEDGED = """
import pathlib, time
_handle = Handler.handle
def _wedge(self, requests, context):
    if (flag := pathlib.Path({flag!r})).exists():
        flag.unlink()
        time.sleep(3600)
    return _handle(self, requests, context)
Handler.handle = _wedge
"""


def test_a_worker_that_lives_but_does_not_answer_is_killed(
    server: Server, tmp_path: Path, make_archive: MakeArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag, handler = tmp_path / "flag", tmp_path / "handler.py"
    for part in (*archive.OURS, *archive.PACKAGE):
        shutil.copyfile(archive.HERE / part, tmp_path / part)
    handler.write_text(handler.read_text() + WEDGED.format(flag=str(flag)))
    monkeypatch.setitem(admission.CODE, "handler.py", handler)
    monkeypatch.setattr(archive, "HERE", tmp_path)
    runtime, name = server.runtime, "wedging"
    mar = make_archive("5")
    version = admission.admit(Model(**entry(name, mar, "5") | {"archive": mar}), "5", runtime.models).name
    management = Management(runtime)
    management.register(name, version)
    management.wait(name, "5", 150)
    known = served.read(runtime)
    extended = known.now | {name: served.Version("5", "simclr", version)}
    monkeypatch.setattr(watchdog, "DEADLINE", 2.0)
    monkeypatch.setattr(watchdog, "PERIOD", 0.5)
    served.write(runtime, served.Served(extended, known.before))
    until(lambda: ready(server).ok and len(ready(server).json()["models"]) == 2)
    pid = management.versions(name)["5"]["workers"][0]["pid"]
    flag.touch()
    until(lambda: not psutil.pid_exists(pid))
    until(lambda: ready(server).ok)
    check(server, name, 5)
    check(server)
    served.write(runtime, known)
    management.remove(name, "5")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_front_end_that_is_killed_or_stopped_comes_back_and_serves_the_same(
    server: Server, number: signal.Signals
) -> None:
    client = Client.of(server.runtime)
    pid, scratch = server.process.pid, server.scratch
    os.kill(pid, number)
    until(lambda: ready(server).status_code == 503)
    until(lambda: ready(server).ok)
    assert server.process.pid != pid
    assert not scratch.exists()
    client.embed(NAME, picture(1)[0])  # the token is another, and the client finds it
    check(server)
    until(lambda: "2" in Management(server.runtime).versions(NAME))
    Management(server.runtime).wait(NAME, "2", 150)
    check(server, f"{NAME}/2", 2)
    rollback(server.runtime)  # the way back was kept
    check(server, factor=2)
    rollback(server.runtime)


def test_tokens_are_renewed_before_they_expire(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys() -> dict[str, Any]:
        return {api: server.runtime.token(api) for api in ("inference", "management")}

    old = keys()
    with monkeypatch.context() as patched:
        patched.setattr(watchdog, "RENEWAL", timedelta(days=365))
        until(lambda: not set(old.values()) & set(keys().values()))
    check(server)


def test_clients_that_cancel_or_send_half_or_nothing_take_no_capacity(server: Server) -> None:
    place = urlsplit(server.runtime.address("inference"))
    png, pixels = picture(3)
    token = server.runtime.token("inference")
    line = f"POST /predictions/{NAME} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    head = f"{line}Content-Length: {len(png)}\r\n\r\n".encode()
    abrupt = b"\1\0\0\0\0\0\0\0"  # linger on, for 0 s: the connection is reset

    def connect(sent: bytes) -> socket.socket:
        connection = socket.create_connection((place.hostname, place.port), timeout=20)
        connection.sendall(sent)
        return connection

    for sent in (head + png, head + png[:20], head, b"") * 100:
        with connect(sent) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, abrupt)
    held = [connect(sent) for sent in (head + png[:20], head, line.encode(), b"") * 100]
    held += [connect(head.replace(str(len(png)).encode(), b"20000000") + bytes(1 << 20)) for _ in range(20)]
    try:
        before = workers(server)
        for vector in Client.of(server.runtime).embed_many(NAME, [png] * 200):
            np.testing.assert_allclose(vector, expected(pixels, 1), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
        assert workers(server) == before
        queue = Management(server.runtime).versions(NAME)["1"]["jobQueueStatus"]
        assert queue == {"remainingCapacity": 64, "pendingRequests": 0}
        assert ready(server).ok
    finally:
        for connection in held:
            connection.close()


def test_a_store_that_was_tampered_with_is_not_served_from(server: Server) -> None:
    known = served.read(server.runtime)
    path = server.runtime.models / known.before[NAME].file
    sound = path.read_bytes()
    path.write_bytes(sound + b"\n")
    os.kill(server.process.pid, signal.SIGKILL)
    try:
        until(lambda: ready(server).status_code == 503)
        until(lambda: ready(server).ok)
        check(server)
        with pytest.raises(Exception, match="is missing or has changed"):
            rollback(server.runtime)
        check(server)
        assert json.loads(server.runtime.served.read_text())["now"][NAME]["version"] == "1"
    finally:
        path.write_bytes(sound)
