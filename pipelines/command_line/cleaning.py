"""`foundry clean`: remove what can be made again, and say how much disk that freed."""

import shutil
import sys
from pathlib import Path

from pipelines.command_line import activity, screen
from pipelines.command_line.disk_use import taken

MADE = ("artifacts", "data/prepared", "data/.prepared.building", "site", ".pytest_cache", ".mypy_cache", ".ruff_cache")
SCRATCH, RUN = Path(".scratch"), Path("serving/run")
KEPT = "params.before*.yaml"  # in the scratch folder: params.yaml as it was before a recipe replaced it


def clean() -> None:
    """Remove all of it. Ends with a sentence where a process still uses it."""
    if busy := activity.running():
        sys.exit(f"Nothing was removed, because {', '.join(busy)} is running. Stop it, then run foundry clean again.")
    paths = [Path(name) for name in MADE]
    if SCRATCH.is_dir():
        kept = set(SCRATCH.glob(KEPT))
        paths += [path for path in sorted(SCRATCH.iterdir()) if path not in kept] if kept else [SCRATCH]
    if activity.is_held(activity.SERVER):
        print(f"The endpoint is running, so {RUN} stays. To stop it: foundry serve --stop")
    else:
        paths.append(RUN)
    freed = 0
    for path in paths:
        if path.exists() or path.is_symlink():
            size = taken(path)
            remove(path)
            freed += size
            print(f"removed {path} ({screen.size(size)})")
    print(f"{screen.size(freed)} freed." if freed else "There was nothing to remove.")


def remove(path: Path) -> None:
    """Remove a file, a folder, or a link but not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
