"""Check the free space on a disk before writing something that must be complete."""

import shutil
from pathlib import Path


def lacking(folder: Path, needed: int) -> str:
    """A message when the disk of `folder` has fewer than `needed` bytes free; otherwise an empty text."""
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return ""
    return (
        f"The disk of {folder} has {free / 1e6:,.1f} MB free, but {needed / 1e6:,.1f} MB are needed. Free some space."
    )
