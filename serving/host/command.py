"""What every command shares: it prepares the process at its start, and prints one message when it fails.

`with command(StageError, name="prepare"): …`. `Parser` reads its arguments. Imports nothing that is slow.
"""

import argparse
import errno
import os
import re
import select
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from serving import ServingError
from serving.host.process import settle

ENOUGH = 128 + signal.SIGPIPE  # what a shell reports of a program whose reader left
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
DENIED = {errno.EACCES, errno.EPERM}
FILES = {errno.EMFILE, errno.ENFILE}
# The same errors as SQLite, safetensors, NumPy and torch's writer word them.
SAYS_FULL = re.compile(
    r"no space left on device|disk is full|disk quota exceeded|\d+ requested and \d+ written"
    r"|file write failed|iostream error|inline_container.*unexpected pos",
    re.IGNORECASE,
)
SAYS_READ_ONLY = re.compile(r"readonly database|read-only file system", re.IGNORECASE)
SAYS_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|unable to allocate", re.IGNORECASE)


class Parser(argparse.ArgumentParser):
    """Arguments of a command, with `--help`. A wrong argument ends it with a message and status 2."""

    def error(self, message: str) -> NoReturn:
        sentence = message[:1].upper() + message[1:].rstrip(".")  # argparse's own begin in lower case
        self.exit(2, f"{self.prog}: {sentence}. For help: {self.prog} --help\n")


@contextmanager
def command(*expected: type[Exception], name: str = "", status: int = 1) -> Iterator[None]:
    """Prepare the process; turn errors that people can correct into a message on stderr and this exit status.

    expected: errors whose text is the message, beside ServingError. name: printed before it. Ctrl-C exits with 130, and
    a reader that leaves (`… | head`) with 141.
    """
    try:
        settle()
        yield
        if sys.stdout:  # closed, it is None
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _unread():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(ENOUGH)
        sentence = str(error) if isinstance(error, (*expected, ServingError)) else explain(error)
        if sentence is None:
            raise
        print(f"{name}: {sentence}" if name else sentence, file=sys.stderr)
        sys.exit(status)


def explain(error: BaseException) -> str | None:
    """The message when the machine refused something: a full disk, no permission, no memory. None for other errors."""
    if isinstance(error, OSError) and error.errno is not None:
        return _refused(error)
    found: BaseException | None = error
    while found is not None:  # a library's own error, and what it came from
        if isinstance(found, OSError) and found.errno in FULL | {errno.EROFS}:
            return _refused(found)
        if isinstance(found, MemoryError) or SAYS_MEMORY.search(str(found)):
            return (
                f"There is not enough memory ({' '.join(str(found).split())[:150] or 'MemoryError'}). "
                "Use smaller numbers in params.yaml (batch_size, size, width), or a machine with more memory."
            )
        if SAYS_FULL.search(str(found)):
            return _full(None)
        if SAYS_READ_ONLY.search(str(found)):
            return _read_only(Path.cwd())
        found = found.__cause__ or found.__context__
    return None


def _unread() -> bool:
    """Whether the reader of stdout has gone."""
    asked = select.poll()
    asked.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in asked.poll(0))


def _refused(error: OSError) -> str:
    path = None if error.filename is None else Path(os.fsdecode(error.filename))
    if error.errno in FULL:
        return _full(path)
    if error.errno == errno.EROFS:
        return _read_only(path or Path.cwd())
    if error.errno in FILES:
        return "Too many files are open. Raise the limit with `ulimit -n 4096`, then run the command again."
    if path is None:
        return f"The operating system refused a read or write in {Path.cwd()}: {error.strerror}. Run the command again."
    if error.errno in DENIED:
        return f"The path {path} is denied to user {os.getuid()}. Change its permissions, or use another folder."
    if error.errno == errno.ENOENT:
        return f"The file {path} is missing. Run the command that makes it; `make demo` runs them all."
    return f"The path {path} cannot be used: {error.strerror}. Check it, then run the command again."


def _full(path: Path | None) -> str:
    """The error may not say where the write failed, so name the free space in both places where we write."""
    here, scratch = Path.cwd(), Path(tempfile.gettempdir()).resolve()
    about = f"The file {path} cannot be written: the disk is full" if path else "The disk is full"
    return (
        f"{about}. {here} has {_free(here)} free; {scratch}, for temporary files, has {_free(scratch)}. "
        "Free some space there, or set TMPDIR to a folder with more space, then run the command again."
    )


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB"
    except OSError:
        return "an unknown number of bytes"


def _read_only(path: Path) -> str:
    return f"The path {path} cannot be written: the file system is read-only. Run from a copy that you may write."
