"""Which GPU a run may use: a file lock for each GPU of this machine, for the runs of all its users.

A lock is named by the GPU's UUID, since its number depends on CUDA_VISIBLE_DEVICES. It lies in /tmp, which all users
and runs share, whatever their TMPDIR says.
"""

import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from pipelines.project.parse import refused
from pipelines.project.stage import StageError

LOCKS = Path("/tmp")
POLL = 1.0  # s between two checks for a free GPU


@contextmanager
def device() -> Iterator[torch.device]:
    """A GPU of our own, the first that no other run holds or that becomes free; without a GPU, the CPU."""
    if not torch.cuda.is_available():
        yield torch.device("cpu")
        return
    with ExitStack() as stack:
        locks = [stack.enter_context(opened(lock_of(i))) for i in range(torch.cuda.device_count())]
        chosen = free(locks)
        if chosen is None:
            print(f"Other runs hold every GPU ({len(locks)}); waiting for the first to become free.", file=sys.stderr)
        while chosen is None:
            time.sleep(POLL)
            chosen = free(locks)
        torch.cuda.set_device(chosen)  # events and kernels go where the process is
        yield torch.device("cuda", chosen)


@contextmanager
def first(n: int) -> Iterator[None]:
    """The first n GPUs to ourselves, where there are any. Raises StageError when there are fewer.

    Every run takes its locks in the order of the UUIDs: no two runs wait for each other.
    """
    found = torch.cuda.device_count()
    if 0 < found < n:
        allowed = f"1 to {found}, the GPUs of this machine"
        raise StageError(f"{refused('pretrain.processes', n, allowed)} Edit params.yaml.")
    with ExitStack() as stack:
        for path, i in sorted((lock_of(i), i) for i in range(min(n, found))):
            if not taken(lock := stack.enter_context(opened(path))):
                print(f"Another run holds GPU {i}; waiting for it to finish.", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def only(i: int) -> Iterator[None]:
    """GPU number i, of this rank, to ourselves. Raises StageError where it is not there or another run holds it.

    A rank does not wait: the others, on other machines perhaps, would wait for it until their time is up.
    """
    if i >= (found := torch.cuda.device_count()):
        raise StageError(f"LOCAL_RANK is {i}, and this machine has {found} GPUs. Start at most one rank per GPU.")
    with opened(lock_of(i)) as lock:
        if not taken(lock):
            raise StageError(
                f"Another run holds GPU {i} of {socket.gethostname()}. Wait for it to finish, or choose other GPUs "
                "with CUDA_VISIBLE_DEVICES, then start the ranks again."
            )
        yield


def lock_of(i: int) -> Path:
    """The lock file of the GPU with this visible number."""
    return LOCKS / f"encoder-foundry-gpu-{torch.cuda.get_device_properties(i).uuid}.lock"


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a lock file that any user may hold: a lock needs no more than permission to read."""
    descriptor = made(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def made(path: Path) -> int:
    """Open the file; make it first, readable by all, where it is not there.

    Another user's file is never opened to write or with O_CREAT: in a sticky folder the kernel refuses both.
    """
    while True:
        try:
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444)
            except FileExistsError:
                continue  # another run was faster
            os.fchmod(descriptor, 0o444)  # whatever the umask is
            return descriptor


def free(locks: list[int]) -> int | None:
    """The first of these whose lock is ours now."""
    return next((i for i, lock in enumerate(locks) if taken(lock)), None)


def taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
