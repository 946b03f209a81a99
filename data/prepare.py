"""A folder of images → the prepared format, in one pass over the files."""

import hashlib
import json
import shutil
import sys
import time
from array import array
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data import DataError, splits
from data.decode import Preprocess
from data.folder import File, Found, find
from data.pool import Bad, decode_all
from data.progress import Progress
from data.shards import DUPLICATES, INDEX, QUARANTINE, Manifest, ShardWriter, write_table

FEWEST = 10
RANK = {"test": 0, "val": 1}  # of exact copies the test keeps its own, so that none leaks into training
OURS = ("images-*.npy", "index.csv", "quarantine.csv", "duplicates.csv", "manifest.json")


@dataclass
class Intake:
    """What one pass over the files found; about 400 bytes an image, the paths among them.

    kept: SHA-256 → the first file with it, in the order of the shards; numbers: for each of them width, height,
    the sums of the three channels and of their squares; conflicts: paths of the kept whose copies have another label.
    """

    kept: dict[bytes, File] = field(default_factory=dict)
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    conflicts: set[str] = field(default_factory=set)
    quarantine: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[tuple[str, str, int]] = field(default_factory=list)

    def labels(self) -> list[str | None]:
        """A label an image, None where there is none or copies disagree."""
        return [None if file.path in self.conflicts else file.label for file in self.kept.values()]


def prepare(
    source: Path,
    out: Path,
    *,
    name: str,
    preprocess: Preprocess,
    val: float,
    test: float,
    max_bad_fraction: float,
    labels: bool,
    seed: int,
    workers: int | None = None,
) -> Manifest:
    """Decode every image below `source` into the folder `out`, replacing an earlier one; print a summary.

    val, test: fractions drawn from the images that have no such folder; max_bad_fraction: of all files;
    workers: processes, None for every core; the result does not depend on it. Raises DataError when the
    folder cannot be used, with out/quarantine.csv left behind where files were bad.
    """
    started = time.monotonic()
    if val < 0 or test < 0 or val + test >= 1:
        raise DataError(f"prepare.val is {val} and prepare.test {test}; allowed is 0 or more, below 1 together")
    _check_out(source, out)
    found = find(source, labels)
    building = out.with_name(f".{out.name}.building")
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        _check_space(building, len(found.files) * 3 * preprocess.size**2)
        intake = _take_in(found, preprocess, building, workers)
        _tell_bad(intake)
        _check_bad(intake, found, out, max_bad_fraction)
        split = _split(intake, source, val, test, seed)
        manifest = _describe(intake, split, name, preprocess)
        _write_tables(intake, split, building)
        manifest.write(building)
        shutil.rmtree(out, ignore_errors=True)
        building.rename(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    counts = " · ".join(f"{split} {count:,}" for split, count in manifest.splits.items())
    print(
        f"prepared {name}: {manifest.images:,} images, {len(manifest.classes)} classes, {counts}, "
        f"{manifest.quarantined:,} quarantined, {manifest.duplicates:,} duplicates, "
        f"{time.monotonic() - started:.1f} s"
    )
    return manifest


def _check_out(source: Path, out: Path) -> None:
    if out.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{out} lies inside the raw folder {source}; choose a folder outside it")
    if out.exists() and not (out.is_dir() and all(any(entry.match(name) for name in OURS) for entry in out.iterdir())):
        raise DataError(f"{out} exists and is not a prepared dataset; choose another folder, or move it away")


def _check_space(folder: Path, needed: int) -> None:
    if (free := shutil.disk_usage(folder).free) < needed:
        raise DataError(
            f"{folder.parent} has {free / 1e9:.1f} GB free, up to {needed / 1e9:.1f} GB are needed; "
            f"make room or lower prepare.size"
        )


def _take_in(found: Found, preprocess: Preprocess, folder: Path, workers: int | None) -> Intake:
    """Decode all, write the images that are kept, and note the rest."""
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
                shards.append(image.pixels)
            progress.advance()
    intake.quarantine.sort()
    return intake


def _tell_bad(intake: Intake) -> None:
    examples = defaultdict[str, list[str]](list)
    for path, reason in intake.quarantine:
        examples[reason.split(":")[0]].append(path)
    for kind, paths in sorted(examples.items()):
        print(f"quarantined, {kind}: {len(paths):,} ({', '.join(paths[:3])})", file=sys.stderr)
    if intake.conflicts:
        print(f"left unlabelled, since copies have another label: {len(intake.conflicts):,}", file=sys.stderr)


def _check_bad(intake: Intake, found: Found, out: Path, max_bad_fraction: float) -> None:
    bad, total = len(intake.quarantine), len(found.files) + len(found.rejected)
    usable, listed = len(intake.kept), f"; the list is {out}/quarantine.csv" if bad else ""
    if bad <= max_bad_fraction * total and usable >= FEWEST:
        return
    if bad:
        out.mkdir(parents=True, exist_ok=True)
        write_table(out / "quarantine.csv", QUARANTINE, intake.quarantine)
    if bad > max_bad_fraction * total:
        raise DataError(
            f"{found.root} has {bad:,} bad files of {total:,} ({bad / total:.1%}), more than "
            f"prepare.max_bad_fraction = {max_bad_fraction:g} allows{listed}"
        )
    raise DataError(f"{found.root} has {usable} usable images; at least {FEWEST} are needed, add some{listed}")


def _split(intake: Intake, source: Path, val: float, test: float, seed: int) -> list[str]:
    """A split an image."""
    split, carve, said = splits.settle([file.split for file in intake.kept.values()], val, test)
    print(said)
    wanted = {"train", *split, *(name for name, fraction in carve.items() if fraction > 0)}
    train = [image for image, name in enumerate(split) if name == "train"]
    labels, keys = intake.labels(), list(intake.kept)
    drawn = splits.draw([labels[i] for i in train], [keys[i].hex() for i in train], carve, seed)
    for image, name in zip(train, drawn, strict=True):
        split[image] = name
    for name in sorted(wanted - set(split)):
        key = f" or raise prepare.{name}" if name in carve else ""
        raise DataError(f"{source} leaves the {name} split without an image; add images{key}")
    return split


def _describe(intake: Intake, split: list[str], name: str, preprocess: Preprocess) -> Manifest:
    labels = intake.labels()
    labelled = Counter(name for name, label in zip(split, labels, strict=True) if label)
    counts = Counter(split)
    present = [name for name in splits.ORDER if counts[name]]
    train = np.frombuffer(intake.numbers, np.int64).reshape(-1, 8)[[name == "train" for name in split]]
    mean, std = zip(*(_mean_std(train[:, [2 + c, 5 + c]], preprocess.size**2) for c in range(3)), strict=True)
    digest = hashlib.sha256(preprocess.to_json().encode())
    for sha256, *row in zip(intake.kept, split, labels, strict=True):
        digest.update(json.dumps([sha256.hex(), *row]).encode())
    return Manifest(
        name=name,
        images=len(split),
        splits={name: counts[name] for name in present},
        classes=tuple(sorted({label for label in labels if label})),
        labelled={name: labelled[name] for name in present},
        quarantined=len(intake.quarantine),
        duplicates=len(intake.duplicates),
        conflicts=len(intake.conflicts),
        mean=mean,
        std=std,
        preprocess=preprocess,
        digest=digest.hexdigest(),
    )


def _mean_std(moments: NDArray[np.int64], pixels: int) -> tuple[float, float]:
    """(n, 2) sums and sums of squares → mean and deviation in [0, 1]; whole numbers until the last division."""
    n = len(moments) * pixels
    high, low = moments >> 32, moments & 0xFFFFFFFF  # the squares of 10 million large images would overflow 64 bits
    total, squares = ((int(h) << 32) + int(k) for h, k in zip(high.sum(axis=0), low.sum(axis=0), strict=True))
    return total / n / 255, float(n * squares - total**2) ** 0.5 / n / 255


def _write_tables(intake: Intake, split: list[str], folder: Path) -> None:
    sizes = np.frombuffer(intake.numbers, np.int64).reshape(-1, 8)[:, :2]
    images = zip(intake.kept.items(), split, intake.labels(), sizes, strict=True)
    index = ((file.path, name, label, sha.hex(), *size) for (sha, file), name, label, size in images)
    write_table(folder / "index.csv", INDEX, index)
    write_table(folder / "quarantine.csv", QUARANTINE, intake.quarantine)
    write_table(folder / "duplicates.csv", DUPLICATES, intake.duplicates)
