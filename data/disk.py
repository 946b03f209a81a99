"""Why a disk does not take a file."""

import errno
import shutil
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def refusal(error: OSError, place: Path) -> str:
    """The system's reason; where the disk is full, how much room is left beside `place`, and what to do."""
    if error.errno not in FULL:
        return str(error.strerror or error)
    folder = next(folder for folder in (place, *place.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(folder).free
    return f"its disk is full ({free / 1e6:,.1f} MB free); make room there, then run the same command again"
