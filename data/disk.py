"""The reason why a file cannot be written, for a message."""

import errno
import shutil
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def refusal(error: OSError, place: Path) -> str:
    """The operating system's reason. On a full disk: how much space is left beside `place`, and what to do.

    The caller adds the full stop.
    """
    if error.errno not in FULL:
        return str(error.strerror or error)
    folder = next(folder for folder in (place, *place.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(folder).free
    return f"its disk is full ({free / 1e6:,.1f} MB free). Free some space there, then run the same command again"
