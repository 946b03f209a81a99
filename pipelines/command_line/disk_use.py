"""How much disk a file or a folder takes."""

import os
from pathlib import Path

BLOCK = 512  # bytes; what st_blocks counts


def taken(path: Path) -> int:
    """Bytes that a file, or a folder with all in it, takes on the disk; a file with several names counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for entry in [path, *(Path(at, name) for at, folders, files in os.walk(path) for name in (*folders, *files))]:
        try:
            found = entry.lstat()
        except OSError:  # removed a moment ago
            continue
        if (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            total += found.st_blocks * BLOCK
    return total
