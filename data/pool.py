"""Decode image files, or do other work on them, in a pool of processes; results keep the order of the files."""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from data import DataError
from data.decoding.decode import Preprocess, read
from data.decoding.image_file import Unusable

CHUNK = 8  # files per task: few enough to name when a worker dies, enough to hide the cost of a task
TASKS_PER_WORKER = 3  # that are submitted, so that memory does not grow with the folder
MAX_FILE_BYTES = 2**30
MAX_NAMED = 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Image:
    """width, height: of the upright original; pixels (3, size, size); sums, squares: per channel, exact."""

    path: str
    sha256: bytes
    width: int
    height: int
    pixels: NDArray[np.uint8]
    sums: tuple[int, ...]
    squares: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bad:
    """reason: its kind, a colon and what the decoder said."""

    path: str
    reason: str


def decode_all(
    root: Path, paths: Sequence[str], preprocess: Preprocess, workers: int | None = None
) -> Generator[Image | Bad]:
    """Every file below root, decoded, in the order given; workers: processes, None for every core."""
    return each(root, paths, partial(_decode, preprocess=preprocess), workers)


def each(root: Path, paths: Sequence[str], do: Callable[[Path, str], T], workers: int | None = None) -> Generator[T]:
    """The result of `do` for root and each path, in the order given.

    Raises DataError, which names the files being read, when a worker is killed.
    """
    workers = workers or _cores()
    context = multiprocessing.get_context("forkserver")  # fork is unsafe beside the threads of torch and tqdm
    context.set_forkserver_preload(["data.pool", "PIL.Image"])
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    flying: deque[tuple[Sequence[str], Future[list[T]]]] = deque()
    try:
        for first in range(0, len(paths), CHUNK):
            chunk = paths[first : first + CHUNK]
            flying.append((chunk, pool.submit(_do_chunk, root, chunk, do)))
            if len(flying) == TASKS_PER_WORKER * workers:
                yield from flying[0][1].result()
                flying.popleft()
        while flying:
            yield from flying[0][1].result()
            flying.popleft()
    except BrokenProcessPool:
        lost = [path for chunk, task in flying if not task.done() or task.exception() for path in chunk]
        named = ", ".join(lost[:MAX_NAMED]) + (f" and {len(lost) - MAX_NAMED} more" if lost[MAX_NAMED:] else "")
        raise DataError(
            f"The system killed a worker process, most likely because memory ran out. It was reading these files of "
            f"{root}: {named}. Move them elsewhere, or use a machine with more memory."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # the cores that a scheduler gave us; missing on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _do_chunk(root: Path, paths: Sequence[str], do: Callable[[Path, str], T]) -> list[T]:
    return [do(root, path) for path in paths]


def contents(path: Path) -> bytes:
    """The bytes of a file; raises Unusable where there are too many, OSError."""
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise Unusable("unreadable", f"the file has {size:,} bytes, more than {MAX_FILE_BYTES:,}")
    return path.read_bytes()


def _decode(root: Path, path: str, preprocess: Preprocess) -> Image | Bad:
    try:
        data = contents(root / path)
        image = read(data, preprocess.range)
        pixels = preprocess.fit(image)
    except Unusable as error:
        return Bad(path, f"{error.kind}: {error}")
    except OSError as error:
        return Bad(path, f"unreadable: {error.strerror}")
    except MemoryError:
        return Bad(path, "unreadable: not enough memory to read it")
    squares = np.square(pixels, dtype=np.uint16).sum(axis=(1, 2), dtype=np.int64)
    sums = pixels.sum(axis=(1, 2), dtype=np.int64)
    digest = hashlib.sha256(data).digest()
    return Image(path, digest, image.width, image.height, pixels, tuple(sums.tolist()), tuple(squares.tolist()))
