"""What `python` is for the stages of a flow: it asks the flow's warm Python to fork one, and waits for its end.

`python -IS client.py SOCKET [-m MODULE …]`. It takes 20 ms, since it imports nothing of the project. Where the
socket does not answer, it becomes the interpreter that was asked for.
"""

import json
import os
import signal
import socket
import sys


def main(path: str, arguments: list[str]) -> int:
    """The exit status of the fork, which works in this process's folder and writes to its outputs."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until there is a fork to pass it on to
    with socket.socket(socket.AF_UNIX) as server:
        try:
            if arguments[:1] != ["-m"]:
                raise OSError
            connect(server, path)
        except OSError:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            os.execv(sys.executable, [sys.executable, *arguments])
        request = json.dumps(
            {"command": arguments[1:], "environment": dict(os.environ), "folder": os.getcwd()}
        ).encode()
        socket.send_fds(server, [len(request).to_bytes(4, "big")], [1, 2])
        server.sendall(request)
        answer = server.makefile("r", encoding="ascii")
        child = int(answer.readline() or 0)
        if child:
            signal.signal(signal.SIGTERM, lambda number, _: os.kill(child, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return int(answer.readline() or 128 + signal.SIGKILL)


def connect(server: socket.socket, path: str) -> None:
    """From the socket's own folder, since an address holds 100 characters."""
    here = os.getcwd()
    os.chdir(os.path.dirname(path))
    try:
        server.connect(os.path.basename(path))
    finally:
        os.chdir(here)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
