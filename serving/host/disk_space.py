"""Free space on a disk, asked for before something is written that must not be cut."""

import shutil
from pathlib import Path


def lacking(folder: Path, needed: int) -> str:
    """A sentence where the disk of `folder` has fewer than `needed` bytes free; nothing where there are enough."""
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return ""
    return (
        f"The disk of {folder} has {free / 1e6:,.1f} MB free, and {needed / 1e6:,.1f} MB are needed. Make room there."
    )
