"""A Python that has imported the slow libraries once, and forks a child for each module that a flow runs.

To import torch, MLflow and DVC takes six seconds of CPU time, a fork some milliseconds. A flow of 25 stages would
import them 25 times, DVC's own processes not counted.
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from pipelines.orchestration import stop
from pipelines.orchestration.warm import client
from pipelines.project import stage

FOLDER = stage.SCRATCH / "warm"
SOCKET = FOLDER / "socket"
CHUNK = 1 << 16  # bytes of a read


class WarmPython:
    """Context manager. Its server, and all children, end with the block or with this process.

    Every thread may start children.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**environment, "PATH": f"{FOLDER.resolve()}{os.pathsep}{environment['PATH']}"}
        FOLDER.mkdir(parents=True, exist_ok=True)
        SOCKET.unlink(missing_ok=True)
        install_client()
        with socket.socket(socket.AF_UNIX) as listening, stop.deaf_children():
            listening.bind(str(SOCKET))  # relative, since an address holds 100 characters
            listening.listen()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.orchestration.warm.server", str(listening.fileno())],
                pass_fds=[listening.fileno()],
                stdin=subprocess.DEVNULL,
                env=self._environment,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def start(self, *command: str, folder: Path | None = None) -> "Child":
        """Run the words after `python -m`, in this folder or here. Raises OSError when the server has ended."""
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(SOCKET))
        (out, out_end), (error, error_end) = os.pipe(), os.pipe()
        try:
            where = str((folder or Path()).resolve())
            request = json.dumps({"command": command, "environment": self._environment, "folder": where}).encode()
            socket.send_fds(server, [len(request).to_bytes(4, "big")], [out_end, error_end])
            server.sendall(request)
        finally:
            os.close(out_end)
            os.close(error_end)
        return Child(out, error, server)


class Child:
    """A forked child. Read its lines to their end, then its exit status."""

    def __init__(self, out: int, error: int, server: socket.socket) -> None:
        self._out, self._error, self._server = out, error, server
        self._answer = server.makefile("r", encoding="ascii")
        self.pid = int(self._answer.readline() or 0)
        if self.pid:
            stop.RUNNING.add(self.pid)
            if stop.STOPPING.is_set():  # since this child was asked for
                stop.end(self.pid)

    def lines(self) -> Iterator[tuple[bool, str]]:
        """Each line of both outputs as it comes, and whether it was written to standard error."""
        rest = {self._out: b"", self._error: b""}
        with selectors.DefaultSelector() as ready:
            for stream in rest:
                ready.register(stream, selectors.EVENT_READ)
            while ready.get_map():
                for stream in [key.fd for key, _ in ready.select()]:
                    chunk = os.read(stream, CHUNK)
                    *lines, rest[stream] = (rest[stream] + (chunk or b"\n" * bool(rest[stream]))).split(b"\n")
                    for line in lines:
                        yield stream == self._error, line.decode("utf-8", "replace")
                    if not chunk:
                        ready.unregister(stream)
                        os.close(stream)

    def wait(self) -> int:
        """The exit status; 137 when the child was killed."""
        with self._server, self._answer:
            status = self._answer.readline()
        stop.RUNNING.discard(self.pid)
        return int(status or 128 + signal.SIGKILL)


def install_client() -> None:
    """Make the client `python` of the stages: it is first on their PATH, and DVC runs `python -m …`."""
    command = FOLDER / "python"
    program = Path(client.__file__)
    command.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -IS "{program}" "{SOCKET.resolve()}" "$@"\n', encoding="utf-8"
    )
    command.chmod(0o755)
