"""Understand folders: which are splits, which are classes, and which hold images without labels.

1. A folder that stands alone is a wrapper, and is skipped, if it holds several folders or a split.
2. Folders called train, val or test (or another of WORDS, in any case) are splits if two different splits are there.
   So are folders whose names differ in that word and in numbers only: seg_train and seg_test, train and test1.
3. A split that is the only one is a split if nothing but unlabelled/ is beside it, or if it holds only folders and the
   others hold none. Otherwise it is a class: test, beside cat and dog.
4. The next folder is the class. What lies deeper belongs to that class.
5. A folder beside the splits that is no class of theirs holds images without labels. So does a val or test that has
   fewer than two folders, none of them a class of train: it cannot judge. Such images train, and neither val nor test
   is drawn from them.
"""

import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from data.splits import EXTRA

WORDS = {
    **dict.fromkeys(("training", "train"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "val"),
    **dict.fromkeys(("testing", "test"), "test"),
}
WORD = re.compile("|".join(WORDS))
UNLABELLED = {"unlabeled", "unlabelled"}
PLAIN = {"images", "image", "imgs", "img"}  # such a folder is no class where it stands alone

Folder = tuple[str, ...]  # the names from the root to it
Place = tuple[str | None, str | None]  # split, or EXTRA, or None; label, or None


@dataclass(frozen=True)
class Layout:
    """top: the wrappers that are skipped; splits: name of a folder → its split; places: what every folder says.

    beside: names of folders beside the splits that are no class; unfit: names of splits that cannot judge.
    """

    top: Folder
    splits: Mapping[str, str]
    places: Mapping[Folder, Place]
    beside: tuple[str, ...] = ()
    unfit: tuple[str, ...] = ()

    @property
    def classes(self) -> list[str]:
        """The names of the classes, sorted."""
        return sorted({label for _, label in self.places.values() if label})


def understand(folders: Iterable[Folder], labels: bool = True) -> Layout:
    """The meaning of every folder that holds files; labels=False gives no folder a label."""
    folders = sorted(folders)
    top = _wrappers(folders, keep={*WORDS, *UNLABELLED}, plain=PLAIN)
    paths = [folder[top:] for folder in folders]
    splits = _splits(paths)
    skips = _skips(paths, splits)
    classes = {_label(path[skips[path[0]] :]) for path in paths if path and path[0] in splits}
    places = {folder: _place(folder[top:], splits, skips, classes) for folder in folders}
    if not labels or not any(label for _, label in places.values()):
        alike = {folder: (None if split == EXTRA else split, None) for folder, (split, _) in places.items()}
        return Layout(folders[0][:top], splits, alike)
    unfit = _unfit(places.values())
    beside = tuple(dict.fromkeys(folder[top] for folder, (split, _) in places.items() if split == EXTRA))
    places = {folder: (EXTRA, None) if place[0] in unfit else place for folder, place in places.items()}
    return Layout(folders[0][:top], splits, places, beside, tuple(name for name in splits if splits[name] in unfit))


def _wrappers(paths: list[Folder], keep: set[str], plain: set[str]) -> int:
    """How many folders at the start of all paths are wrappers; keep: names of folders that are none."""
    depth = wrappers = 0
    while len({path[depth : depth + 1] for path in paths}) == 1 and paths[0][depth:]:
        name = paths[0][depth].lower()
        if name in keep:
            break
        depth += 1
        inner = {path[depth].lower() for path in paths if path[depth:]}
        if name in plain or len(inner) > 1 or inner & WORDS.keys():
            wrappers = depth
    return wrappers


def _splits(paths: list[Folder]) -> dict[str, str]:
    """Name → split, of the first folders that are splits."""
    first = sorted({path[0] for path in paths if path})
    alike = defaultdict[str, dict[str, str]](dict)
    for name in first:
        for rest, split in _readings(name.lower()):
            alike[rest][name] = split
    if several := [names for names in alike.values() if len(set(names.values())) > 1]:
        return {name: split for names in several for name, split in names.items()}
    alone = alike[""]
    others = {name for name in first if name not in alone and name.lower() not in UNLABELLED}
    files = {path[0] for path in paths if len(path) == 1}
    folders = {path[0] for path in paths if len(path) > 1}
    return alone if not others or not (alone.keys() & files or others & folders) else {}


def _readings(name: str) -> Iterable[tuple[str, str]]:
    """What is left of a name without the word of a split, and that split."""
    for word in WORD.finditer(name):
        before, after = name[: word.start()], name[word.end() :]
        if not before or not after or not (before[-1].isalpha() or after[0].isalpha()):
            yield f"{before}/{after}".strip("/0123456789"), WORDS[word[0]]


def _skips(paths: list[Folder], splits: Mapping[str, str]) -> dict[str, int]:
    """Name of a split → how many folders come before the class: its own and the wrappers in it."""
    inside = {name: [path[1:] for path in paths if path[:1] == (name,)] for name in splits}
    first = {name: {path[0].lower() for path in of if path} for name, of in inside.items()}
    keep = UNLABELLED | {name for names in first.values() if len(names) > 1 for name in names}
    return {name: 1 + _wrappers(of, keep, plain=PLAIN | {name.lower()}) for name, of in inside.items()}


def _place(path: Folder, splits: Mapping[str, str], skips: Mapping[str, int], classes: Container[str | None]) -> Place:
    """What the path below the wrappers says; classes: those in the splits."""
    if not path:
        return None, None
    if path[0] in splits:
        return splits[path[0]], _label(path[skips[path[0]] :])
    label = _label(path)
    if not splits or not label:
        return ("train" if splits else None), label
    # Without a folder for train, the folders beside val and test are what there is to learn from.
    return (None, label) if label in classes or "train" not in splits.values() else (EXTRA, None)


def _label(path: Folder) -> str | None:
    if not path or path[0].lower() in UNLABELLED:
        return None
    # macOS writes é as two code points, Linux as one: the same class.
    return sys.intern(unicodedata.normalize("NFC", path[0]))


def _unfit(places: Iterable[Place]) -> set[str | None]:
    """The splits that cannot judge the classes of train."""
    known = defaultdict[str | None, set[str]](set)
    for split, label in places:
        known[split] |= {label} if label else set()
    learnt = known["train"] | known[None]
    return {name for name in ("val", "test") if len(learnt) > 1 and len(known[name]) < 2 and not known[name] & learnt}
