"""The process behind a warm Python: it has imported the slow libraries, and forks a child per request.

A request is the length of a JSON object in four bytes, with the descriptors of both outputs, then the object: the words
after `python -m`, the environment and the folder to work in. The answer is two lines: the child's process id, and its
exit status at its end.
"""

import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

# What most stages import, in the order of need. None of it starts a thread or touches a GPU, so that a fork is safe.
SLOW = (
    *("torch", "sklearn.linear_model", "scipy.stats", "mlflow", "mlflow.store.tracking.sqlalchemy_store"),
    *("torch._dynamo", "onnxruntime", "onnxscript", "matplotlib.backends.backend_svg", "sklearn.manifold", "jinja2"),
)
OWN = ("data", "models", "pipelines", "serving")  # the project's modules: a child imports them as they are by then


def serve(listening: socket.socket) -> None:
    """Fork a child for every connection, for ever. Between two of them do the next thing that children would repeat."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a child: it reports its own end
    left: list[Callable[[], object]] = [*(partial(importlib.import_module, name) for name in SLOW), list_packages]
    while True:
        if left and not select.select([listening], [], [], 0)[0]:
            left.pop(0)()
            continue
        connection, _ = listening.accept()
        with connection:
            if not os.fork():
                listening.close()
                run(connection)


def run(connection: socket.socket) -> None:
    """In the child: be `python -m` of what is asked. Does not return."""
    head, outputs, _, _ = socket.recv_fds(connection, 4, 2)
    with connection.makefile("rb") as asked:
        request = json.loads(asked.read(int.from_bytes(head, "big")))
    become(outputs, request["environment"])
    os.chdir(request["folder"])
    connection.sendall(f"{os.getpid()}\n".encode())
    status = 1
    try:
        status = run_module(request["command"])
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        with suppress(OSError):
            connection.sendall(f"{status}\n".encode())
        os._exit(status)


def become(outputs: Sequence[int], environment: dict[str, str]) -> None:
    """Have these outputs and this environment, and share no chance and no module of the project with other children."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for output, standard in zip(outputs, (1, 2), strict=True):
        os.dup2(output, standard)
        os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    random.seed()
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
        del sys.modules[name]


def run_module(command: list[str]) -> int:
    """The exit status that an interpreter would end with."""
    sys.argv = command[:]
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def read_pipeline() -> None:
    """Have DVC import all that it imports late."""
    from dvc.cli.parser import get_main_parser  # noqa: PLC0415
    from dvc.repo import Repo  # noqa: PLC0415

    get_main_parser()
    with suppress(Exception), Repo() as repo:  # a fault is a child's to report
        repo.index  # noqa: B018


def list_packages() -> None:
    """Have MLflow list the installed packages. It needs the list to log a model, and takes two seconds to make it."""
    from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches  # noqa: PLC0415

    warn_dependency_requirement_mismatches(["mlflow"])


if __name__ == "__main__":
    from pipelines.project.stage import die_with_parent

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    read_pipeline()
    serve(socket.socket(fileno=int(sys.argv[1])))
