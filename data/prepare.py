"""A folder of images → the prepared format."""

import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data import DataError, splits
from data.decoding.decode import Preprocess
from data.disk import refusal
from data.folders import depth, intake, remarks
from data.folders.folder import Found, find
from data.folders.intake import LEVELS, Intake
from data.shards import DUPLICATES, INDEX, QUARANTINE, Manifest, write_table

POOR = 0.05  # of the images of more than 8 bits, whose loss of grey levels is worth a warning
OURS = ("images-*.npy", "index.csv", "quarantine.csv", "duplicates.csv", "manifest.json")


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
    """Decode every image below `source` into the folder `out`, replacing an earlier one, and print a summary.

    preprocess: where it has no range, the range of images of more than 8 bits is measured. val, test: the fractions
    to take where the folder has no such split. max_bad_fraction: of all files. workers: processes, None for one per
    core; the result does not depend on it. Raises DataError when the folder cannot be used; out/quarantine.csv then
    lists the bad files.
    """
    if val < 0 or test < 0 or val + test >= 1:
        raise DataError(
            f"Parameter prepare.val is {val} and prepare.test is {test}. Allowed: 0 or more each, below 1 together."
        )
    _check_out(source, out)
    found = find(source, labels)
    _tell_layout(found, val, test)
    building = out.with_name(f".{out.name}.building")
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        _check_space(building, len(found.files) * 3 * preprocess.size**2)
        deep = depth.find(source, [file.path for file in found.files], workers)
        preprocess = _with_range(preprocess, source, deep, workers)
        taken = intake.take_in(found, deep, preprocess, building, workers)
        intake.tell(taken)
        intake.check(taken, found, out, max_bad_fraction)
        _tell_poor(taken.poor, len(deep), preprocess)
        split = _split(taken, found, val, test, seed)
        _warn(remarks.judging(split, taken.labels()))
        manifest = _describe(taken, split, name, preprocess)
        _write_tables(taken, split, building)
        manifest.write(building)
        shutil.rmtree(out, ignore_errors=True)
        building.rename(out)
    except OSError as error:
        raise DataError(f"The folder {out} cannot be written: {refusal(error, out)}.") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    counts = " · ".join(f"{split} {count:,}" for split, count in manifest.splits.items())
    print(
        f"Prepared {name}: {manifest.images:,} images, {len(manifest.classes)} classes, {counts}, "
        f"{manifest.quarantined:,} quarantined, {manifest.duplicates:,} duplicates"
    )
    return manifest


def _check_out(source: Path, out: Path) -> None:
    if out.resolve().is_relative_to(source.resolve()):
        raise DataError(f"The folder {out} lies inside the raw folder {source}. Choose a folder outside it.")
    if out.exists() and not (out.is_dir() and all(any(entry.match(name) for name in OURS) for entry in out.iterdir())):
        raise DataError(f"The path {out} exists and is no prepared dataset. Choose another folder, or move it away.")


def _check_space(folder: Path, needed: int) -> None:
    if (free := shutil.disk_usage(folder).free) < needed:
        raise DataError(
            f"The disk of {folder.parent} has {free / 1e6:,.1f} MB free, but {needed / 1e6:,.1f} MB may be needed. "
            "Free some space there, or lower prepare.size in params.yaml."
        )


def _tell_layout(found: Found, val: float, test: float) -> None:
    drawn = splits.assign([file.split for file in found.files], val, test)[2]
    print(f"{found.layout}; {drawn}.", file=sys.stderr)  # a person should read it: a flow shows what is on stderr
    _warn(found.cautions)


def _with_range(preprocess: Preprocess, source: Path, deep: dict[str, str], workers: int | None) -> Preprocess:
    """The preprocessing with a range, where there are images of more than 8 bits; say which."""
    how = "prepare.range"
    if deep and preprocess.range is None:
        preprocess, how = replace(preprocess, range=depth.measure(source, deep, workers)), "prepare.range: auto"
    if deep and preprocess.range:
        have = "images have" if len(deep) > 1 else "image has"
        values = depth.shown(preprocess.range)
        print(f"{len(deep):,} {have} more than 8 bits: values {values} become 0 to 255 ({how}).")
    return preprocess


def _tell_poor(poor: int, deep: int, preprocess: Preprocess) -> None:
    if preprocess.range and poor > POOR * deep:
        warning = (
            f"{poor:,} of {deep:,} images of more than 8 bits keep fewer than {LEVELS} grey levels. Set prepare.range "
            f"to the values that matter (now {depth.shown(preprocess.range)})."
        )
        _warn([warning])


def _warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        print(f"Warning: {sentence}", file=sys.stderr)


def _split(taken: Intake, found: Found, val: float, test: float, seed: int) -> list[str]:
    """One split per image."""
    given = [file.split for file in taken.kept.values()]
    _warn(remarks.lost({file.split for file in found.files} - set(given)))
    split, carve, _ = splits.assign(given, val, test)
    wanted = {"train", *split, *(name for name, fraction in carve.items() if fraction > 0)} - {splits.EXTRA}
    train = [image for image, name in enumerate(split) if name == "train"]
    labels, keys = taken.labels(), list(taken.kept)
    drawn = splits.draw([labels[i] for i in train], [keys[i].hex() for i in train], carve, seed)
    for image, name in zip(train, drawn, strict=True):
        split[image] = name
    split = ["train" if name == splits.EXTRA else name for name in split]
    for name in sorted(wanted - set(split)):
        if name in carve:
            raise DataError(remarks.too_few(found.root, name, [labels[i] for i in train]))
        raise DataError(f"The folder {found.root} leaves the {name} split without an image. Add images.")
    return split


def _describe(taken: Intake, split: list[str], name: str, preprocess: Preprocess) -> Manifest:
    labels = taken.labels()
    labelled = Counter(name for name, label in zip(split, labels, strict=True) if label)
    counts = Counter(split)
    present = [name for name in splits.ORDER if counts[name]]
    train = np.frombuffer(taken.numbers, np.int64).reshape(-1, 8)[[name == "train" for name in split]]
    mean, std = zip(*(_mean_std(train[:, [2 + c, 5 + c]], preprocess.size**2) for c in range(3)), strict=True)
    digest = hashlib.sha256(preprocess.to_json().encode())
    for sha256, *row in zip(taken.kept, split, labels, strict=True):
        digest.update(json.dumps([sha256.hex(), *row]).encode())
    return Manifest(
        name=name,
        images=len(split),
        splits={name: counts[name] for name in present},
        classes=tuple(sorted({label for label in labels if label})),
        labelled={name: labelled[name] for name in present},
        quarantined=len(taken.quarantine),
        duplicates=len(taken.duplicates),
        conflicts=len(taken.conflicts),
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


def _write_tables(taken: Intake, split: list[str], folder: Path) -> None:
    sizes = np.frombuffer(taken.numbers, np.int64).reshape(-1, 8)[:, :2]
    images = zip(taken.kept.items(), split, taken.labels(), sizes, strict=True)
    index = ((file.path, name, label, sha.hex(), *size) for (sha, file), name, label, size in images)
    write_table(folder / "index.csv", INDEX, index)
    write_table(folder / "quarantine.csv", QUARANTINE, taken.quarantine)
    write_table(folder / "duplicates.csv", DUPLICATES, taken.duplicates)
