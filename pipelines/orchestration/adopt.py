"""A folder of the user's becomes the data set: copied into data/raw, recorded by DVC.

The copy is ours, file by file, because DVC refuses a whole folder for one dangling link, and because its own way
(`dvc add --out`) leaves a second copy of every image behind in its cache.
"""

import filecmp
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from data.folders.folder import Found, find, shown
from data.origin import is_signed
from data.progress import Progress
from data.sources import occupied
from pipelines.project import ConfigError, config, params, recipes, stage
from pipelines.project.stage import StageError

DEFAULT = "photos"  # the recipe for a folder
SHOWN = 3  # files that a sentence names


def adopt(folder: Path, recipe: str | None = None, name: str | None = None) -> None:
    """Copy the folder to data/raw/<name>, under DVC, and make the recipe params.yaml.

    Nothing is copied where data/raw/<name> holds the same images. A params.yaml that names the data set stays,
    edited or not, which is said where a recipe was named. Without one it is `photos`. Raises StageError, also where
    data/raw/<name> holds other images.
    """
    text = recipes.read(recipe or DEFAULT)
    if not folder.is_dir():
        raise StageError(f"The path {folder} is not a folder. Name a folder of images.")
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "images"
    config.check_name(name, "--name")
    target = stage.RAW / name
    fresh = not target.exists()
    if folder.resolve() != target.resolve():
        found = readable(find(folder, labels=False))
        if fresh:
            copy(found, target)
        elif same(found, target):
            print(f"{target} holds the images of {folder} already")
        else:
            raise StageError(
                f"The folder {target} holds other images than {folder}. To keep both, name the new data set: "
                f"--name NAME. To replace the copy, remove {target} and {target}.dvc first."
            )
    if not named(name):  # before DVC reads it: a recipe may fetch a public set of this name
        recipes.write(recipes.of_own_folder(text, name), f"the recipe {recipe or DEFAULT} for {name}")
    elif recipe:
        print(
            f"params.yaml is for {name} already and stays as it is: --recipe {recipe} is not applied. To start from a "
            "recipe again, remove params.yaml first.",
            file=sys.stderr,
        )
    if fresh:
        track(target)


def named(dataset: str) -> bool:
    """Whether params.yaml is about this folder of the user's already."""
    try:
        found = params.read(config.PARAMS)
    except ConfigError:
        return False
    return str(found.get("dataset")) == dataset and found.get("download") == []


def check_download(sets: Sequence[str]) -> None:
    """Raises StageError where a public set would be fetched into a folder of the user's."""
    for name in sets:
        target = stage.RAW / name
        if Path(f"{target}.dvc").exists() or (target.exists() and not is_signed(target, name)):
            raise StageError(occupied(name, target))


def check_recordable(folder: Path) -> None:
    """Raises StageError where DVC cannot record the folder: it fails on some odd entries and hangs on others."""
    odd = [
        Path(at, name)
        for at, folders, files in os.walk(folder)
        for names, usable in ((folders, is_utf8), (files, lambda path: is_utf8(path) and path.is_file()))
        for name in names
        if not usable(Path(at, name))
    ]
    if odd:
        raise StageError(
            f"The folder {folder} holds {len(odd):,} entries that DVC cannot record, such as {shown(str(odd[0]))}: "
            f"dangling links, pipes, or names that are not UTF-8. Remove them, or move the folder out of {stage.RAW} "
            f"and run: python -m pipelines.flow FOLDER, which copies it without them."
        )


def is_utf8(path: Path) -> bool:
    return shown(path.name) == path.name


def readable(found: Found) -> Found:
    """The same, what we may not read among the rejected."""
    files = [file for file in found.files if os.access(found.root / file.path, os.R_OK)]
    refused = {file.path for file in found.files} - {file.path for file in files}
    rejected = [*found.rejected, *((path, "we may not read it") for path in sorted(refused))]
    return Found(found.root, files, rejected)


def same(found: Found, target: Path) -> bool:
    """Whether the target holds the files of the folder, byte for byte, and no others."""
    paths = [file.path for file in found.files]
    if paths != [file.path for file in find(target, labels=False).files]:
        return False
    with Progress(len(paths), f"compare with {target}", "files") as progress:
        for path in paths:
            if not filecmp.cmp(found.root / path, target / path):
                return False
            progress.advance()
    return True


def copy(found: Found, target: Path) -> None:
    """Copy every file, links followed; say what is left out. The target is whole or not there."""
    sizes = [(found.root / file.path).stat().st_size for file in found.files]
    target.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(target.parent).free) < 2 * sum(sizes):
        raise StageError(
            f"The folder {found.root} takes {sum(sizes) / 1e9:.1f} GB. Its copies in {target} and in DVC's cache take "
            f"twice that, and {free / 1e9:.1f} GB are free. Free some space, or move the project to a larger disk."
        )
    print(f"copying {len(sizes):,} files ({sum(sizes) / 1e6:,.1f} MB) to {target}; DVC keeps another copy in its cache")
    leave_out(found)
    building = target.with_name(f".{target.name}.copying")
    shutil.rmtree(building, ignore_errors=True)
    try:
        with Progress(sum(sizes), f"copy to {target}", "bytes") as progress:
            for file, size in zip(found.files, sizes, strict=True):
                to = building / file.path
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(found.root / file.path, to)
                progress.advance(size)
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def leave_out(found: Found) -> None:
    """Say which entries of the folder are not in the copy, and why."""
    if found.rejected:
        some = ", ".join(f"{path} ({reason})" for path, reason in found.rejected[:SHOWN])
        more = f" and {len(found.rejected) - SHOWN:,} more" if len(found.rejected) > SHOWN else ""
        print(
            f"{len(found.rejected):,} of {len(found.files) + len(found.rejected):,} entries of {found.root} are left "
            f"out of the copy: {some}{more}",
            file=sys.stderr,
        )


def track(target: Path) -> None:
    """Record the folder by `dvc add`. Raises StageError with DVC's own words."""
    command = [sys.executable, "-m", "dvc", "add", str(target)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        shutil.rmtree(target)  # our copy: without DVC's record the next run would take it for the user's
        raise StageError(f"DVC cannot add the folder {target}. Its output was:\n{done.stderr.strip()}")
