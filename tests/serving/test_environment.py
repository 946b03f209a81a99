"""TorchServe and its clients work whatever the environment says: proxies, foreign packages, settings of the tools."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from pipelines import drift
from serving.client import Client
from serving.deploy import deploy, status
from serving.host import loopback
from serving.host.runtime import Runtime
from serving.torchserve import java
from serving.torchserve.management import Management
from serving.torchserve.process import Server
from tests.serving.conftest import (
    ROOT,
    MakeArchive,
    entry,
    expected,
    picture,
    promote,
    until,
    watched,
)

DEAD = "http://127.0.0.1:9"  # nothing listens there
PROXIES = {name: DEAD for word in ("http", "https", "all") for name in (f"{word}_proxy", f"{word}_proxy".upper())}


@pytest.fixture
def behind_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that does not answer, and a ~/.netrc with a password for every host."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in PROXIES.items():
        monkeypatch.setenv(name, value)
    (netrc := tmp_path / "netrc").write_text("default login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))


@pytest.mark.usefixtures("behind_a_proxy")
def test_a_client_reaches_a_server_of_this_machine(server: Runtime) -> None:
    found = Client.of(server).embed("digits-encoder", picture(1)[0])
    np.testing.assert_allclose(found, expected(picture(1)[1]), rtol=1e-4, atol=1e-5)
    by_address = Client(server.address("inference"), server.token("inference"))
    assert len(by_address.embed("digits-encoder", picture(1)[0])) == len(found)
    assert Management(server).names() == ["digits-encoder", "digits-simclr"]
    assert "digits-encoder: version 3, ready" in status(server, Path("absent"))
    assert os.environ["http_proxy"] == DEAD  # it is its importer's, and stays


@pytest.mark.usefixtures("behind_a_proxy")
def test_a_server_starts_deploys_and_is_watched(tmp_path: Path, make_archive: MakeArchive) -> None:
    with watched(tmp_path / "run") as server:
        deploy(promote(tmp_path, entry("digits-encoder", make_archive())), server.runtime)
        address = server.runtime.address("ready")
        until(lambda: loopback.request("GET", f"{address}/ready", timeout=20).ok)
        assert drift.figures(address) == {}


def test_the_token_is_kept_from_netrc_for_other_machines_too(behind_a_proxy: None) -> None:
    client = Client("http://encoder.example.org", "token")
    assert client.session.trust_env  # a proxy may be the only way there
    asked = client.session.prepare_request(
        requests.Request("POST", client.address, headers={"Authorization": "Bearer token"})
    )
    assert asked.headers["Authorization"] == "Bearer token"


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("0.0.0.0", True),
     ("8.8.8.8", False), ("example.org", False), ("127.0.0.1.example.org", False), ("", False)],
)  # fmt: skip
def test_what_is_this_machine(host: str, here: bool) -> None:
    assert loopback.here(host) is here


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """All that could replace our settings and our code, and a temporary folder with a path of 120 characters."""
    (settings := tmp_path / "other.properties").write_text("inference_address=http://127.0.0.1:1\nnumber_of_gpu=9\n")
    foreign = tmp_path / "foreign"
    for package in ("serving", "models", "data", "handler", "decode"):
        (foreign / package).mkdir(parents=True)
        (foreign / package / "__init__.py").write_text("raise SystemExit('foreign code')\n")
    long = tmp_path / ("t" * (120 - len(str(tmp_path)) - 1))
    long.mkdir()
    for name, value in {
        "TS_CONFIG_FILE": str(settings),
        "TS_MODEL_SERVER_HOME": "/nowhere",
        "LOG_LOCATION": "/proc/nowhere",
        "METRICS_LOCATION": "/proc/nowhere",
        "JAVA_TOOL_OPTIONS": "-Xmx1k",
        "_JAVA_OPTIONS": "-Djava.io.tmpdir=/nowhere",
        "JDK_JAVA_OPTIONS": "--no-such-option",
        "LOG4J_CONFIGURATION_FILE": "/nowhere.xml",
        "PYTHONPATH": str(foreign),
        "PYTHONINSPECT": "1",
        "LOCAL_RANK": "3",
        "RANK": "three",
        "WORLD_SIZE": "4",
        "TMPDIR": str(long),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", None)
    yield long
    assert list(long.iterdir()) == []  # what was there for the server went with it


def test_a_server_keeps_its_settings_and_its_code(hostile: Path, tmp_path: Path, make_archive: MakeArchive) -> None:
    with Server(Runtime(tmp_path / "run"), free_ports=True) as server:
        deploy(promote(tmp_path, entry("digits-encoder", make_archive())), server.runtime)
        assert server.scratch.resolve().parent == hostile  # where the user wants it, by a short path
        found = Client.of(server.runtime).embed("digits-encoder", picture(1)[0])
    np.testing.assert_allclose(found, expected(picture(1)[1]), rtol=1e-4, atol=1e-5)


def test_what_others_need_of_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {
        "LD_LIBRARY_PATH": "/opt/lib",
        "OMP_NUM_THREADS": "1",
        "TZ": "UTC",
        "TSAN_OPTIONS": "x",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    assert java.environment(Path("/java/bin/java"), Path("/scratch")).items() >= kept.items()


def test_a_client_does_not_wait_for_a_pipe_and_names_any_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "lost.png").symlink_to("nowhere.png")
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.png"))
    odd.mkdir()
    client = Client(DEAD)  # it is never asked
    found = [
        str(answer) for answer in client.embed_many("x", [tmp_path / "pipe.png", tmp_path / "lost.png", odd, "a\0b"])
    ]
    assert found == [
        f"{tmp_path}/pipe.png cannot be read: it is a pipe, not a regular file.",
        f"{tmp_path}/lost.png cannot be read: it links to nowhere.png, which is missing.",
        f"{tmp_path}/\\xff.png cannot be read: it is a folder, not a regular file.",
        "a\0b cannot be read: embedded null byte.",
    ]


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_leaves_ends_a_command_without_a_word(lines: int) -> None:
    read, write = os.pipe()
    os.close(read)
    program = f"from serving.host.command import command\nwith command():\n  for i in range({lines}): print(i)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_command_whose_stdout_is_closed_ends_well() -> None:
    line = f"{sys.executable} -c 'from serving.host.command import command\nwith command(): pass' >&-"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
