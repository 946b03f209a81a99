"""Files of the run folder that are removed, cut or changed are put back or refused, and answers go on."""

import errno
import json
import os
import re
import shutil
import signal
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from serving import ServingError, watchdog
from serving.deploy import rollback
from serving.host import lock
from serving.host.runtime import Runtime
from serving.rollout import admission, served_file
from serving.torchserve.process import Server
from serving.torchserve.upkeep import Upkeep
from tests.serving.conftest import ready, until
from tests.serving.watchdog.workers import NAME, check, until_two, workers


def asked(metrics: str) -> float:
    """How many requests TorchServe has counted."""
    text = requests.get(f"{metrics}/metrics", timeout=20).text
    return sum(map(float, re.findall(rf'^ts_inference_requests_total{{model_name="{NAME}".*}} (\S+)$', text, re.M)))


def test_a_folder_that_is_removed_is_put_back_and_what_answers_goes_on(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by `make clean`: tokens, table, archives and lock. The front end and the workers do not notice."""
    runtime, pid, before = server.runtime, server.process.pid, until_two(server)
    for _ in range(2):  # the watchdog has looked once more, and so knows what was deployed last
        runtime.lock.unlink()
        until(runtime.lock.exists)
    known, token = served_file.read(runtime), runtime.token("inference")
    shutil.rmtree(runtime.folder)
    files = [runtime.models / version.file for _, version in known.all()]
    until(lambda: all(file.exists() for file in files))
    assert (served_file.read(runtime), runtime.token("inference")) == (known, token)
    assert runtime.keys.stat().st_mode & 0o777 == 0o600
    assert [f"{admission.sha256(file)}.mar" for file in files] == [file.name for file in files]
    with pytest.raises(ServingError, match=r"runs in .* already"):
        lock.take(runtime)
    check(server)
    assert (server.process.pid, workers(server)) == (pid, before)
    assert ready(server).json()["faults"] == []
    assert "while the server runs. Restored." in capsys.readouterr().err


def test_a_file_that_a_full_disk_cut_is_written_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(tmp_path)
    texts = {
        runtime.config: "inference_address=http://127.0.0.1:1\n",
        runtime.keys: "{}",
        runtime.served: '{"now": {}, "before": {}}',
    }
    for folder in (runtime.models, runtime.metrics):
        folder.mkdir()
    for path, text in texts.items():
        path.write_text(text)
    lock.take(runtime).close()
    with closing(Upkeep(runtime, print)) as upkeep:
        upkeep.look()
        for path in (*texts, runtime.lock):
            path.unlink()
            with monkeypatch.context() as full:
                full.setattr(Path, "write_text", no_room)
                full.setattr(lock, "take", cut_lock)
                for _ in range(3):
                    upkeep.look()
                assert "No space left" in upkeep.faults["folder"]
                assert upkeep.runtime.address("inference") == "http://127.0.0.1:1"
            for _ in range(2):
                upkeep.look()
            assert upkeep.faults.keys() <= {"disk"}
        assert {path: path.read_text() for path in texts} == texts
        assert runtime.pid == os.getpid()


def cut_lock(runtime: Runtime) -> None:
    runtime.lock.touch()
    no_room()


def no_room(*args: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_front_end_whose_files_cannot_be_written_again_goes_on_and_is_ready(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk. The watchdog asks it by what it remembers."""
    runtime, pid = server.runtime, server.process.pid
    files = (runtime.config, runtime.keys, runtime.served)
    texts = {path: path.read_text() for path in files}
    address, metrics = runtime.address("ready"), runtime.address("metrics")
    monkeypatch.setattr(watchdog, "PERIOD", 0.2)
    monkeypatch.setattr(watchdog, "DEADLINE", 1.0)
    monkeypatch.setattr(Upkeep, "_mend", no_room)
    try:
        before = asked(metrics)
        for path in files:
            path.unlink()
        until(lambda: asked(metrics) >= before + 12 or server.process.pid != pid)  # for longer than the deadline
        assert requests.get(f"{address}/ready", timeout=20).ok
        assert server.process.pid == pid
    finally:
        for path, text in texts.items():
            path.write_text(text)


def test_an_archive_that_is_gone_for_good_is_told_and_stops_no_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a folder is in its place, so that it cannot be written again."""
    monkeypatch.setattr(watchdog, "PERIOD", 0.5)
    pid, runtime = server.process.pid, server.runtime
    path = runtime.models / served_file.read(runtime).now[NAME].file
    sound = path.read_bytes()
    path.unlink()
    path.mkdir()
    try:
        metrics = runtime.address("metrics")
        before = asked(metrics)
        until(lambda: asked(metrics) >= before + 2)  # the watchdog has asked again, and then once more
        assert ready(server).ok
        (fault,) = ready(server).json()["faults"]
        assert fault.startswith(f"The files in {runtime.folder} cannot be restored (")
        assert server.process.pid == pid
    finally:
        path.rmdir()
        path.write_bytes(sound)


def test_tokens_are_renewed_before_they_expire(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys() -> dict[str, Any]:
        return {api: server.runtime.token(api) for api in ("inference", "management")}

    old = keys()
    with monkeypatch.context() as patched:
        patched.setattr(watchdog, "RENEWAL", timedelta(days=365))
        until(lambda: not set(old.values()) & set(keys().values()))
    check(server)


def test_a_store_that_was_tampered_with_is_not_served_from(server: Server) -> None:
    known = served_file.read(server.runtime)
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
