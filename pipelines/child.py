"""DVC as a child that ends when its parent does: `python -m pipelines.child repro …`."""

import ctypes
import os
import signal
import sys

FLOW = "ENCODER_FOUNDRY_FLOW"  # the pid of the flow that started this process, or the one above it


def die_with_parent() -> None:
    """A killed parent must not leave a process behind that goes on writing (Linux; elsewhere nothing happens).

    The kernel tells only of deaths from now on. If the flow died while this process still imported its modules, the
    process ends here.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        try:
            os.kill(int(os.environ.get(FLOW, os.getpid())), 0)
        except PermissionError:
            pass  # it lives, as another user
        except ProcessLookupError:
            sys.exit(1)


if __name__ == "__main__":
    die_with_parent()
    from dvc.cli import main

    sys.exit(main())
