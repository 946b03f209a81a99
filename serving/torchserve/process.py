"""TorchServe as a child process: `with Server() as server:`."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

import requests

from serving import ServingError
from serving.host import lock, loopback
from serving.host.process import find_temporary_folder
from serving.host.runtime import Runtime, settings, write
from serving.torchserve import java, ports, status_patch
from serving.worker.metrics import FOLDER

HERE = Path(__file__).resolve().parent


class Server:
    """A TorchServe without models. Entering starts it and waits until it answers; leaving stops all its processes.

    `runtime`: its folder (git-ignored). `free_ports`: take any free ports instead of the configured ones, so that
    several servers can run side by side. Raises ServingError, with the end of the log, when it fails.
    """

    def __init__(self, runtime: Runtime | None = None, free_ports: bool = False, seconds: float = 60) -> None:
        # Resolved, since the child works in this folder.
        self.runtime = Runtime((runtime or Runtime()).folder.resolve())
        self.free_ports = free_ports
        self.seconds = seconds

    def __enter__(self) -> Self:
        self.java = java.find_java()
        self.config = (HERE.parent / "config.properties").read_text(encoding="utf-8")
        if self.free_ports:
            self.config += ports.free()
        self.lock = lock.take(self.runtime)
        try:
            ports.check(settings(self.config))
        except ServingError:
            self.lock.close()
            raise
        for old in self.runtime.folder.glob(f"{self.runtime.log.name}*"):
            old.unlink()
        self.output = self.runtime.output.open("w", encoding="utf-8")
        for folder in (self.runtime.models, self.runtime.metrics):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self.runtime.keys.unlink(missing_ok=True)
        self.runtime.served.unlink(missing_ok=True)
        self.previous = _end_on_signals()
        self._start()
        atexit.register(self.stop)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        write(self.runtime.config, self.config)  # each time: somebody may have removed it
        # Workers listen on sockets in the temporary folder, all servers under the same names, and a socket's
        # path has at most 107 characters: a short folder of its own.
        find_temporary_folder()
        self.scratch = Path(tempfile.mkdtemp(prefix="torchserve-"))
        home, frontend = java.find()
        status_patch.write(frontend, self.scratch / "classes")
        # TorchServe's worker imports torch, seconds and 180 MiB, only to know a tensor that a handler returns. Ours
        # returns bytes: this in its place lets a worker that was killed answer again in half the time.
        (self.scratch / "torch.py").write_text("class Tensor: ...\n", encoding="utf-8")
        command = [
            *java.DIES_WITH_US,
            str(self.java),
            *settings(self.config)["vmargs"].split(),
            f"-Dmodel_server_home={home}",
            f"-Djava.io.tmpdir={self.scratch}",
            f"-Dlog4j.configurationFile={HERE / 'log4j2.xml'}",
            f"-Dencoder.log={self.runtime.log}",
            *("-cp", f"{self.scratch / 'classes'}:{frontend / '*'}", "org.pytorch.serve.ModelServer"),
            *("--python", sys.executable),
            *("-f", str(self.runtime.config)),
            *("-s", str(self.runtime.models)),
            "-ncs",
        ]
        # Java itself, not the `torchserve` command: that one leaves a daemon and one pid file for all
        # servers. A process group of its own, so that the workers can be ended too; umask for the tokens.
        self.process = subprocess.Popen(
            command,
            cwd=self.runtime.folder,
            env=java.environment(self.java, self.scratch) | {FOLDER: str(self.runtime.metrics)},
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            pass_fds=[self.lock.fileno()],
            process_group=0,
            umask=0o077,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            with suppress(ServingError, requests.RequestException, ValueError):
                ping = f"{self.runtime.address('inference')}/ping"
                headers = {"Authorization": f"Bearer {self.runtime.token('inference')}"}
                if loopback.request("GET", ping, headers=headers, timeout=5).ok:
                    return
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
                break
        raise self._failed(f"did not start within {self.seconds:.0f} s")

    def restart(self) -> None:
        """End what is left of it and start again in the same folder, without models and with new tokens."""
        self._end()
        self._start()
        self._wait_until_ready()

    def _failed(self, how: str) -> ServingError:
        log = self.runtime.log
        return ServingError(f"TorchServe {how}. The log {log} ends with:\n{self.runtime.tail()}")

    def stop(self) -> None:
        """End the front end and all workers."""
        atexit.unregister(self.stop)
        try:
            _signal_group(self.process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        finally:  # also when Ctrl-C comes a second time
            self._end()
            self.runtime.keys.unlink(missing_ok=True)
            self.output.close()
            self.lock.close()
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}

    def _end(self) -> None:
        _signal_group(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


def _end_on_signals() -> dict[signal.Signals, signal.Handlers]:
    """Make SIGTERM and SIGHUP (a closed terminal) leave the `with` block. Returns the previous handlers.

    Signals that have a handler already are left alone.
    """

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    if (
        threading.current_thread() is not threading.main_thread()
    ):  # the main thread handles signals, and atexit stops the server
        return {}
    found = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            found[number] = signal.SIG_DFL
            signal.signal(number, leave)
    return found


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
