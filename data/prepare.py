"""A folder of images → the prepared format, in one pass over the files."""

import hashlib
import json
import shutil
import sys
import time
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from data import DataError, splits
from data.decode import Preprocess
from data.folder import File, Found, find
from data.pool import Bad, Image, decode_all
from data.progress import Progress
from data.shards import DUPLICATES, INDEX, QUARANTINE, Manifest, ShardWriter, write_table

FEWEST = 10
RANK = {"test": 0, "val": 1}  # of exact copies the test keeps its own, so that none leaks into training
OURS = ("images-*.npy", "index.csv", "quarantine.csv", "duplicates.csv", "manifest.json")


@dataclass(slots=True)
class Row:
    """A kept image; split and label as its folder gives them, until the splits are settled."""

    path: str
    split: str | None
    label: str | None
    sha256: str
    width: int
    height: int
    sums: tuple[int, ...]
    squares: tuple[int, ...]
    conflict: bool = False


@dataclass
class Intake:
    """What one pass over the files found."""

    rows: list[Row] = field(default_factory=list)
    quarantine: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[tuple[str, str, int]] = field(default_factory=list)


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
        _split(intake.rows, source, val, test, seed)
        manifest = _describe(intake, name, preprocess)
        _write_tables(intake, building)
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
    intake, kept = Intake(quarantine=list(found.rejected)), dict[str, Row]()
    with (
        Progress(len(files), "prepare", "images") as progress,
        ShardWriter(folder, preprocess.size) as shards,
        closing(decode_all(found.root, [f.path for f in files], preprocess, workers)) as decoded,
    ):
        for file, image in zip(files, decoded, strict=True):
            if isinstance(image, Bad):
                intake.quarantine.append((image.path, image.reason))
            elif first := kept.get(image.sha256):
                intake.duplicates.append(_duplicate(file, first))
            else:
                kept[image.sha256] = _row(file, image)
                shards.append(image.pixels)
            progress.advance()
    intake.rows = list(kept.values())
    intake.quarantine.sort()
    for row in intake.rows:
        if row.conflict:
            row.label = None
    return intake


def _row(file: File, image: Image) -> Row:
    return Row(file.path, file.split, file.label, image.sha256, image.width, image.height, image.sums, image.squares)


def _duplicate(file: File, first: Row) -> tuple[str, str, int]:
    conflict = None not in (file.label, first.label) and file.label != first.label
    first.conflict |= conflict
    return file.path, first.path, int(conflict)


def _tell_bad(intake: Intake) -> None:
    examples = defaultdict[str, list[str]](list)
    for path, reason in intake.quarantine:
        examples[reason.split(":")[0]].append(path)
    for kind, paths in sorted(examples.items()):
        print(f"quarantined, {kind}: {len(paths):,} ({', '.join(paths[:3])})", file=sys.stderr)
    if conflicts := sum(row.conflict for row in intake.rows):
        print(f"left unlabelled, since copies have another label: {conflicts:,}", file=sys.stderr)


def _check_bad(intake: Intake, found: Found, out: Path, max_bad_fraction: float) -> None:
    bad, total = len(intake.quarantine), len(found.files) + len(found.rejected)
    usable, listed = len(intake.rows), f"; the list is {out}/quarantine.csv" if bad else ""
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


def _split(rows: list[Row], source: Path, val: float, test: float, seed: int) -> None:
    settled, carve, said = splits.settle([row.split for row in rows], val, test)
    print(said)
    wanted = {"train", *settled, *(split for split, fraction in carve.items() if fraction > 0)}
    for row, split in zip(rows, settled, strict=True):
        row.split = split
    train = [row for row in rows if row.split == "train"]
    drawn = splits.draw([row.label for row in train], [row.sha256 for row in train], carve, seed)
    for row, split in zip(train, drawn, strict=True):
        row.split = split
    for split in sorted(wanted - {row.split for row in rows}):
        key = f" or raise prepare.{split}" if split in carve else ""
        raise DataError(f"{source} leaves the {split} split without an image; add images{key}")


def _describe(intake: Intake, name: str, preprocess: Preprocess) -> Manifest:
    rows = intake.rows
    labelled = Counter(row.split for row in rows if row.label)
    counts = Counter(row.split for row in rows)
    present = [split for split in splits.ORDER if counts[split]]
    mean, std = zip(*(_mean_std(rows, channel, preprocess.size**2) for channel in range(3)), strict=True)
    digest = hashlib.sha256(preprocess.to_json().encode())
    for row in rows:
        digest.update(json.dumps([row.sha256, row.split, row.label]).encode())
    return Manifest(
        name=name,
        images=len(rows),
        splits={split: counts[split] for split in present},
        classes=tuple(sorted({row.label for row in rows if row.label})),
        labelled={split: labelled[split] for split in present},
        quarantined=len(intake.quarantine),
        duplicates=len(intake.duplicates),
        conflicts=sum(row.conflict for row in rows),
        mean=mean,
        std=std,
        preprocess=preprocess,
        digest=digest.hexdigest(),
    )


def _mean_std(rows: list[Row], channel: int, pixels: int) -> tuple[float, float]:
    """Of the train split, in [0, 1]; whole numbers until the last division."""
    train = [row for row in rows if row.split == "train"]
    n = len(train) * pixels
    total = sum(row.sums[channel] for row in train)
    squares = sum(row.squares[channel] for row in train)
    return total / n / 255, float(n * squares - total**2) ** 0.5 / n / 255


def _write_tables(intake: Intake, folder: Path) -> None:
    index = ((r.path, r.split, r.label, r.sha256, r.width, r.height) for r in intake.rows)
    write_table(folder / "index.csv", INDEX, index)
    write_table(folder / "quarantine.csv", QUARANTINE, intake.quarantine)
    write_table(folder / "duplicates.csv", DUPLICATES, intake.duplicates)
