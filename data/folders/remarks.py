"""Sentences about a folder: how its layout was understood, and what cannot be measured with its labels."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from data.folders.layout import PLAIN, WORDS, Folder, Layout
from data.splits import ORDER

NAMED = 5  # of what a sentence lists
FEWEST = 3  # images per class, so that each split has one

Sizes = Mapping[Folder, int]  # folder → the files in it


def understood(root: Path, layout: Layout, sizes: Sizes, labels: bool, others: int = 0) -> str:
    """How the layout was understood, in one line.

    labels: whether they were asked for; others: files that are no images by their names.
    """
    classes = layout.classes
    line = f"{_count(len(classes), 'class folder')} ({_some(classes)})" if classes else "no class folders"
    line = line if labels else "labels are off (prepare.labels: false)"
    splits = sorted(layout.splits, key=lambda name: (ORDER.index(layout.splits[name]), name))
    if names := [f"{name}/" for name in splits if name not in layout.unfit]:
        line = f"{_and(names)} with {line}" if labels else f"{_and(names)}; {line}"
    if any(label and unicodedata.normalize("NFC", folder[-1]) != label for folder, (_, label) in layout.places.items()):
        line += "; deeper folders are no classes"
    if without := [folder for folder, (_, label) in layout.places.items() if classes and not label]:
        names = sorted({"".join(f"{name}/" for name in _first(layout, folder)) or "no folder" for folder in without})
        line += f"; {_count(sum(sizes[folder] for folder in without), 'file')} without labels in {_and(names)}"
    if others:
        line += f"; {_count(others, 'file')} left out by name, such as text"
    return f"{root.joinpath(*layout.top)}: {line}"


def cautions(layout: Layout, sizes: Sizes) -> list[str]:
    """Warnings about parts of the layout that the person may have meant differently."""
    files = Counter[Folder]()
    for folder, n in sizes.items():
        files[_first(layout, folder)] += n
    found = [
        f"{name}/ cannot be the {(split := layout.splits[name])} split, because no folder in it is a class of train. "
        f"Its files ({files[name,]:,}) train without labels. To make it the {split} split, give it train's classes."
        for name in layout.unfit
    ]
    found += [
        f"{name}/ is no class, because it is beside the split folders. Its files ({files[name,]:,}) train without "
        "labels. Move it elsewhere to leave it out."
        for name in layout.beside
    ]
    doubtful = PLAIN if layout.splits else PLAIN | WORDS.keys()
    found += [
        f"{name}/ is read as a class. Rename the folder, or move it elsewhere, if that is wrong."
        for name in layout.classes
        if name.lower() in doubtful
    ]
    second = {name for folder in sizes for name in folder[len(layout.top) + 1 :][:1] if name.lower() in WORDS}
    if not layout.splits and len({WORDS[name.lower()] for name in second}) > 1:
        found.append(
            f"{_and([f'{name}/' for name in sorted(second)])} inside class folders are not read as splits. "
            "Put the class folders into the split folders instead: train/cat, not cat/train."
        )
    return found


def judging(split: Sequence[str], labels: Sequence[str | None]) -> list[str]:
    """Warnings about what val and test cannot measure. split, labels: of every image."""
    counts = Counter((name, label) for name, label in zip(split, labels, strict=True) if label)
    classes = {name: {label for of, label in counts if of == name} for name in ORDER}
    every = sorted(set[str]().union(*classes.values()))
    if len(every) < 2:
        return ["All labels are of one class. Accuracy is not measured, because it needs two classes."] if every else []
    found = []
    if poor := [name for name in ORDER if len(classes[name]) < 2]:
        found.append(
            "Accuracy is not measured, because it needs labelled images of two classes in each split. "
            f"{_and(poor)} {_has(poor)} fewer. Add some."
        )
    for name in ("val", "test"):
        if (absent := sorted(classes[name] - classes["train"])) and "train" not in poor:
            lost, total = (sum(counts[name, label] for label in of) for of in (absent, classes[name]))
            shown = _some([f"{label}: {counts[name, label]:,}" for label in absent])
            found.append(
                f"{_count(len(absent), 'class')} of {name} {_has(absent)} no image in train ({shown}), so accuracy on "
                f"{name} cannot be higher than {1 - lost / total:.1%}. Add images of them to train."
            )
    totals = Counter(label for label in labels if label)
    if few := [label for label in every if totals[label] < FEWEST and label not in classes["val"] | classes["test"]]:
        shown = _some([f"{label}: {totals[label]}" for label in few])
        found.append(
            f"{_count(len(few), 'class')} of {len(every)} {_has(few)} only 1 or 2 images ({shown}), all of them in "
            f"train. Accuracy says nothing about them. Add images until there are {FEWEST} per class."
        )
    return found


def lost(splits: Set[str | None]) -> list[str]:
    """Warnings about folders of val or test without an image that can be used."""
    return [
        f"No image in the {name} folder can be used: all are bad, or copies of images in another split. "
        f"The split is taken from other images."
        for name in ORDER[1:]
        if name in splits
    ]


def too_few(source: Path, name: str, labels: Sequence[str | None]) -> str:
    """Why no image can be chosen for this split, and what to do. labels: of the images to choose from."""
    if len(labels) < FEWEST:
        return (
            f"The folder {source} leaves the {name} split without an image, because train has fewer than {FEWEST}. "
            "Add images."
        )
    return (
        f"The folder {source} leaves the {name} split without an image, because every class has only 1 or 2 images. "
        f"Add images until there are {FEWEST} per class, or set prepare.labels: false in params.yaml, "
        "so that the split is chosen without regard to classes."
    )


def _first(layout: Layout, folder: Folder) -> Folder:
    """The first folder below the wrappers, () for none."""
    return folder[len(layout.top) :][:1]


def _count(n: int, noun: str) -> str:
    plural = "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{plural if n != 1 else ''}"


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if names[NAMED:] else "")


def _and(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
