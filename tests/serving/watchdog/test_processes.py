"""Workers and front ends that are killed, stopped or wedged come back by themselves and serve what they served."""

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import requests

from serving import ServingError, watchdog
from serving.client import Client
from serving.deploy import rollback
from serving.host.promoted import Model
from serving.rollout import admission, archive, served_file
from serving.torchserve.management import Management
from serving.torchserve.process import Server
from tests.serving.conftest import ROOT, MakeArchive, entry, expected, picture, ready, until
from tests.serving.watchdog.workers import NAME, check, until_two, workers


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
    metrics = ready(server, "metrics").text
    assert re.search(rf'encoder_requests_total{{model="{NAME}",status="200",version="1"}} [1-9]', metrics)
    assert re.search(rf'encoder_inference_seconds_count{{model="{NAME}",version="1"}} [1-9]', metrics)


def test_the_dashboard_asks_for_series_and_labels_that_a_live_server_tells(server: Server) -> None:
    """Of every query of every panel; the workers have had good images, one bad image, and enough to judge drift."""
    images = [picture(seed)[0] for seed in range(100)]
    list(Client.of(server.runtime).embed_many(NAME, [*images, b"rubbish"]))
    text = ready(server, "metrics").text
    text += requests.get(f"{server.runtime.address('metrics')}/metrics", timeout=20).text
    metrics = {
        name: set(re.findall(r'(\w+)="', labels)) for name, labels in re.findall(r"^(\w+)\{(.*)\} \S+$", text, re.M)
    }
    board = json.loads((ROOT / "serving/grafana.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    assert len(queries) > len(board["panels"]) == 8
    for query in queries:
        series = set(re.findall(r"\b(?:encoder|ts)_\w+", query))
        assert series <= metrics.keys(), query
        grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(",")}
        selected = set(re.findall(r"(\w+)\s*(?:=~|!=|=)", query))
        assert all(grouped | selected <= metrics[name] for name in series), query


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


SLOW = """
import pathlib, time
_handle = Handler.handle
def _slow(self, requests, context):
    if (flag := pathlib.Path({flag!r})).exists():
        flag.unlink()
        {work}
    return _handle(self, requests, context)
Handler.handle = _slow
"""
WORK = {
    "wedged": "time.sleep(3600)",
    "busy": "end = time.monotonic() + 6\n        while time.monotonic() < end: pass",
}


@pytest.fixture
def slow(
    server: Server, tmp_path: Path, make_archive: MakeArchive, monkeypatch: pytest.MonkeyPatch, request: Any
) -> Iterator[Path]:
    """A second name, whose next answer comes late, or never, once the file is there."""
    flag, handler = tmp_path / "flag", tmp_path / "handler.py"
    handler.write_text(archive.CODE["handler.py"].read_text() + SLOW.format(flag=str(flag), work=WORK[request.param]))
    monkeypatch.setitem(archive.CODE, "handler.py", handler)
    runtime = server.runtime
    mar = make_archive("5")
    version = admission.admit(Model(**entry("slow", mar, "5") | {"archive": mar}), "5", runtime.models).name
    management = Management(runtime)
    management.register("slow", version)
    management.wait("slow", "5", 150)
    known = served_file.read(runtime)
    monkeypatch.setattr(watchdog, "DEADLINE", 2.0)
    monkeypatch.setattr(watchdog, "PERIOD", 0.5)
    served_file.write(
        runtime, served_file.Served(known.now | {"slow": served_file.Version("5", "simclr", version)}, known.before)
    )
    until(lambda: ready(server).ok and len(ready(server).json()["models"]) == 2)
    yield flag
    served_file.write(runtime, known)
    management.remove("slow", "5")


def of_slow(server: Server) -> set[int]:
    return {worker["pid"] for worker in Management(server.runtime).versions("slow")["5"]["workers"]}


@pytest.mark.parametrize("slow", ["wedged"], indirect=True)
def test_a_worker_that_lives_but_does_not_answer_is_killed(server: Server, slow: Path) -> None:
    pids = of_slow(server)
    slow.touch()
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    until(lambda: ready(server).ok)
    check(server, "slow", 5)
    check(server)


@pytest.mark.parametrize("slow", ["busy"], indirect=True)
def test_a_worker_that_computes_for_long_is_left_alone(server: Server, slow: Path) -> None:
    """As one does with a batch of large photographs: three times the deadline here."""
    pids = of_slow(server)
    slow.touch()
    until(lambda: not ready(server).ok)
    until(lambda: ready(server).ok)
    assert of_slow(server) == pids
    check(server, "slow", 5)


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
