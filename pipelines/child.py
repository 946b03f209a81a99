"""DVC as a child that ends when its parent does: `python -m pipelines.child repro …`."""

import ctypes
import signal
import sys


def die_with_parent() -> None:
    """A killed parent must not leave a process behind that goes on writing (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    from dvc.cli import main

    die_with_parent()
    sys.exit(main())
