"""Read all files of a folder once: keep the images, quarantine bad files, note copies."""

import sys
from array import array
from collections import defaultdict
from collections.abc import Container
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data import DataError
from data.decoding.decode import Preprocess
from data.folders.folder import File, Found
from data.pool import Bad, decode_all
from data.progress import Progress
from data.shards import QUARANTINE, ShardWriter, write_table
from data.splits import EXTRA

FEWEST = 10
LEVELS = 16
# Of exact copies the test keeps its own, so that none leaks into training; a copy without a label yields.
RANK = {"test": 0, "val": 1, EXTRA: 3}


@dataclass
class Intake:
    """What one pass over the files found. It takes about 400 bytes per image, paths included.

    kept: SHA-256 → the first file with it, in the order of the shards; numbers: for each of them width, height,
    the sums of the three channels and of their squares; conflicts: paths of the kept whose copies have another label;
    poor: how many of the kept that had more than 8 bits have fewer than LEVELS grey levels now.
    """

    kept: dict[bytes, File] = field(default_factory=dict)
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    conflicts: set[str] = field(default_factory=set)
    quarantine: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[tuple[str, str, int]] = field(default_factory=list)
    poor: int = 0

    def labels(self) -> list[str | None]:
        """One label per image; None where there is none or copies disagree."""
        return [None if file.path in self.conflicts else file.label for file in self.kept.values()]


def take_in(found: Found, deep: Container[str], preprocess: Preprocess, folder: Path, workers: int | None) -> Intake:
    """Decode all, write the images that are kept, and note the rest; deep: those of more than 8 bits."""
    files = sorted(found.files, key=lambda file: (RANK.get(file.split or "", 2), file.path))
    intake = Intake(quarantine=list(found.rejected))
    with (
        Progress(len(files), "prepare", "images") as progress,
        ShardWriter(folder, preprocess.size) as shards,
        closing(decode_all(found.root, [f.path for f in files], preprocess, workers)) as decoded,
    ):
        for file, image in zip(files, decoded, strict=True):
            if isinstance(image, Bad):
                intake.quarantine.append((image.path, image.reason))
            elif first := intake.kept.get(image.sha256):
                conflict = None not in (file.label, first.label) and file.label != first.label
                intake.conflicts |= {first.path} if conflict else set()
                intake.duplicates.append((file.path, first.path, int(conflict)))
            else:
                intake.kept[image.sha256] = file
                intake.numbers.extend((image.width, image.height, *image.sums, *image.squares))
                intake.poor += image.path in deep and np.unique(image.pixels).size < LEVELS
                shards.append(image.pixels)
            progress.advance()
    intake.quarantine.sort()
    return intake


def tell(intake: Intake) -> None:
    """Print to standard error which files were quarantined."""
    examples = defaultdict[str, list[str]](list)
    for path, reason in intake.quarantine:
        examples[reason.split(":")[0]].append(path)
    for kind, paths in sorted(examples.items()):
        print(f"Quarantined, {kind}: {len(paths):,} ({', '.join(paths[:3])})", file=sys.stderr)
    if intake.conflicts:
        print(f"Left without a label, because copies have another label: {len(intake.conflicts):,}", file=sys.stderr)


def check(intake: Intake, found: Found, out: Path, max_bad_fraction: float) -> None:
    """Raise DataError when too many files are bad or too few are left. `out` then lists the bad ones."""
    bad, total = len(intake.quarantine), len(found.files) + len(found.rejected)
    usable, listed = len(intake.kept), f"They are listed in {out}/quarantine.csv. " if bad else ""
    if bad <= max_bad_fraction * total and usable >= FEWEST:
        return
    if bad:
        out.mkdir(parents=True, exist_ok=True)
        write_table(out / "quarantine.csv", QUARANTINE, intake.quarantine)
    if bad > max_bad_fraction * total:
        raise DataError(
            f"The folder {found.root} has {bad:,} bad files of {total:,} ({bad / total:.1%}). {listed}"
            f"Remove them, or raise prepare.max_bad_fraction in params.yaml (now {max_bad_fraction:g})."
        )
    raise DataError(
        f"The folder {found.root} has only {usable} images that can be used. {listed}"
        f"Add images until there are at least {FEWEST}."
    )
