"""Read people's image files: links, pipes and names of any kind, without waiting and without failing on a name."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LARGEST = 1 << 30  # bytes; a file must fit into memory, and no image is larger


class Unreadable(Exception):
    """Why a file cannot be read, as the end of a sentence."""


def read(path: Path | str) -> bytes:
    """The bytes of a regular file. Raises Unreadable for everything else, without opening a pipe, which would wait."""
    try:
        with _opened(path) as descriptor:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise Unreadable(f"it is {kind(about.st_mode)}, not a regular file")
            if about.st_size > LARGEST:
                raise Unreadable(f"it has {about.st_size:,} bytes, more than the allowed {LARGEST:,}")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read()
    except FileNotFoundError:
        target = os.readlink(path) if os.path.islink(path) else None
        raise Unreadable(f"it links to {escaped(target)}, which is missing" if target else "it is missing") from None
    except OSError as error:
        raise Unreadable(str(error.strerror)) from None
    except MemoryError:
        raise Unreadable("there is not enough memory for it") from None
    except ValueError as error:  # a name with a zero byte
        raise Unreadable(str(error)) from None


@contextmanager
def _opened(path: Path | str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def escaped(path: Path | str) -> str:
    r"""A path as text that can be printed and stored: a byte that is no UTF-8 becomes \xff."""
    return os.fsencode(path).decode(errors="backslashreplace")


def kind(mode: int) -> str:
    """The kind of file that is no regular file, by its mode."""
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for matches, name in kinds.items() if matches(mode)), "a device")
