"""DVC as a child that ends when its parent does: `python -m pipelines.orchestration.dvc_process repro …`.

It and its stage do not hear Ctrl-C: the flow does, and ends them.
"""

import json
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from pipelines.project.stage import die_with_parent

WRITING = 5  # s that DVC has to finish a file


def end_in_order(number: int, _frame: FrameType | None) -> None:
    """On SIGTERM: end the stage, and DVC with it. DVC itself, cut off in a write, would leave half a dvc.lock."""
    import psutil  # noqa: PLC0415 - a stage imports this module, also on a machine that has torch alone

    signal.signal(number, lambda *_: signal.alarm(WRITING))  # asked again, it does not wait for the stage
    stages = psutil.Process().children(recursive=True)
    for process in stages:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    if not stages:
        signal.alarm(WRITING)


def mend(folder: Path = Path(".dvc/tmp")) -> None:
    """Remove DVC's record of who reads and writes where a DVC that was killed left half of it: none would start again.

    Raises DvcException where another DVC holds the record for longer than it ever needs.
    """
    from dvc.lock import make_lock  # noqa: PLC0415

    record = folder / "rwlock"
    if not is_whole(record):  # or is just being written
        with make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)):
            if not is_whole(record):
                record.unlink()


def is_whole(record: Path) -> bool:
    """Whether a JSON file can be read, or is not there."""
    try:
        json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # before the stage starts, which inherits it
    signal.signal(signal.SIGTERM, end_in_order)
    die_with_parent()
    from dvc.cli import main

    mend()
    sys.exit(main())
