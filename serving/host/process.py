"""Prepare the environment that a command and its children need. Imports nothing that is slow.

Call `settle()` before Prefect, MLflow or torch are imported, because they read the environment then.
"""

import getpass
import io
import os
import shutil
import sys
import tempfile
from collections.abc import MutableMapping
from multiprocessing.util import Finalize
from pathlib import Path

from serving import ServingError

OURSELVES = ("127.0.0.1", "localhost", "::1")
# A socket's path has at most 107 bytes. The longest names below the temporary folder are those of TorchServe's
# workers, /torchserve-xxxxxxxx/.ts.sock.9000, and of multiprocessing, /pymp-xxxxxxxx/listener-xxxxxxxx.
LONGEST = 70
SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def settle() -> None:
    """Prepare this process and its children. Calling it twice is safe. Raises ServingError without a folder."""
    leave_ascii()
    print_whatever_the_terminal_can_show()
    find_temporary_folder()
    name_the_user(os.environ)
    bypass_proxies(os.environ)


def leave_ascii() -> None:
    """Under an ASCII locale, start this command again in Python's UTF-8 mode.

    Otherwise libraries such as SQLite cannot open a folder whose name has an accent. The output stays ASCII.
    """
    if sys.getfilesystemencoding() == "ascii":
        os.environ |= {"PYTHONUTF8": "1", "PYTHONIOENCODING": "ascii:replace"}  # for children too
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def print_whatever_the_terminal_can_show() -> None:
    """Replace the characters that the locale lacks, instead of failing on them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def bypass_proxies(environment: MutableMapping[str, str]) -> None:
    """Send requests to this machine past proxies; other hosts stay as they were set.

    A library that finds both spellings of the variable reads only one of them, so both name all hosts.
    """
    before = {name: environment.get(name) for name in ("NO_PROXY", "no_proxy")}
    for name, other in (("NO_PROXY", "no_proxy"), ("no_proxy", "NO_PROXY")):
        given = before[name] if before[name] is not None else before[other]
        hosts = [host.strip() for host in (given or "").split(",") if host.strip()]
        if "*" not in hosts:  # alone, it means every host
            environment[name] = ",".join([*hosts, *(host for host in OURSELVES if host not in hosts)])


def name_the_user(environment: MutableMapping[str, str]) -> None:
    """Give a user ID that has no entry in the password file a name and a home: torch, MLflow and DVC need both."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        environment["USER"] = environment["LOGNAME"] = f"uid-{os.getuid()}"
    try:
        Path.home()
    except RuntimeError:
        environment["HOME"] = tempfile.gettempdir()


def find_temporary_folder() -> None:
    """Put a usable folder with a short path into TMPDIR. Raises ServingError when there is none."""
    wanted = os.environ.get("TMPDIR")
    try:
        found = tempfile.gettempdir()
    except FileNotFoundError:
        raise ServingError(
            f"No temporary file can be written in {wanted or 'the temporary folder'} (TMPDIR), nor in {SHORT[0]}. "
            "Set TMPDIR to an existing folder that you may write and that has free space."
        ) from None
    if wanted and os.path.realpath(wanted) != os.path.realpath(found):
        print(f"TMPDIR is {wanted}, but no file can be written there. Temporary files go to {found}.", file=sys.stderr)
        os.environ["TMPDIR"] = found
    if len(os.fsencode(found)) > LONGEST:
        tempfile.tempdir = os.environ["TMPDIR"] = _link(found)


def _link(folder: str) -> str:
    """A short path of the same folder, for as long as this process runs."""
    for place in SHORT:
        try:
            own = tempfile.mkdtemp(prefix="short-", dir=place)
        except OSError:
            continue
        # After multiprocessing's own, at -100: it removes its folder by this path.
        Finalize(None, shutil.rmtree, (own,), {"ignore_errors": True}, exitpriority=-200)
        link = Path(own, "tmp")
        link.symlink_to(folder, target_is_directory=True)
        return str(link)
    raise ServingError(
        f"TMPDIR is {folder}, a path of {len(folder)} characters. Sockets in it allow at most {LONGEST}. "
        "Set TMPDIR to a folder with a shorter path."
    )
