"""At most one server runs in a folder: a lock says whether one runs, and another process can stop it.

TorchServe inherits the lock, so it is held until the front end and its workers have ended.
"""

import fcntl
import os
import signal
import time
from contextlib import suppress
from typing import IO

from serving import ServingError
from serving.host.runtime import Runtime


def take(runtime: Runtime) -> IO[str]:
    """The lock, for as long as the file is open here or in a child. Raises ServingError when a server runs."""
    runtime.folder.mkdir(parents=True, exist_ok=True)
    lock = runtime.lock.open("a", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ServingError(
            f"A server of this project runs in {runtime.folder} already (process {runtime.pid}). To stop it, press "
            "Ctrl-C in its terminal, or run: python -m serving.server --stop."
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))  # ours, not that of Java, which we would start again
    lock.flush()
    return lock


def stop(runtime: Runtime, seconds: float = 30) -> str:
    """Stop the server that runs in this folder, from another process. Raises ServingError when that takes longer."""
    runtime.folder.mkdir(parents=True, exist_ok=True)
    with runtime.lock.open("a", encoding="utf-8") as lock:
        end = time.monotonic() + seconds
        asked = 0
        while time.monotonic() < end:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return f"Stopped the server (process {asked})." if asked else f"No server runs in {runtime.folder}."
            # A full disk leaves the lock empty: process 0 would be every process of our own group.
            if not asked and (asked := runtime.pid) > 0:
                with suppress(ProcessLookupError):
                    os.kill(asked, signal.SIGTERM)
            time.sleep(0.1)
    if asked <= 0:
        raise ServingError(
            f"A server runs in {runtime.folder}, but {runtime.lock} does not name its process. "
            f"Find it with: fuser {runtime.lock}."
        )
    raise ServingError(f"Process {asked} did not end within {seconds:g} s. End it with: kill -9 {asked}.")
