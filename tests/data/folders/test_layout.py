"""Folders as people have them: which splits and labels are read, and what is said."""

from collections import Counter
from pathlib import Path

import pytest

from data import DataError
from data.folders.folder import find

Meaning = dict[tuple[str | None, str | None], int]  # (split, label) → files

CATS_AND_DOGS = {("train", "cat"): 1, ("train", "dog"): 1, ("test", "cat"): 1, ("test", "dog"): 1}


def meaning(root: Path, paths: str, labels: bool = True) -> Meaning:
    for path in paths.split():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return Counter((file.split, file.label) for file in find(root, labels).files)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("TRAIN", "test"),
        ("seg_train", "seg_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train_images", "test_images"),
        ("training_set", "test_set"),
        ("train2017", "test2017"),
        ("train", "test1"),
        ("HR_train_x4", "HR_test_x4"),
        ("train/train", "test/test"),
        ("train/images", "test/images"),
        ("archive/train", "archive/test"),
        ("archive/set-1/Training", "archive/set-1/Testing"),
    ],
)
def test_split_folders_by_any_name(tmp_path: Path, train: str, test: str) -> None:
    paths = " ".join(f"{split}/{name}/1.jpg" for split in (train, test) for name in ("cat", "dog"))
    assert meaning(tmp_path, paths) == CATS_AND_DOGS


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        ("test/1.jpg dog/2.jpg cat/3.jpg", ["cat", "dog", "test"]),
        ("train/1.jpg bus/2.jpg unlabelled/3.jpg", ["bus", "train"]),
        ("test/old/1.jpg dog/old/2.jpg cat/3.jpg", ["cat", "dog", "test"]),
        ("test/old/1.jpg test/2.jpg dog/3.jpg", ["dog", "test"]),
        ("train_station/1.jpg test_tube/2.jpg", ["test_tube", "train_station"]),
        ("archive/test/1.jpg archive/dog/2.jpg", ["dog", "test"]),
    ],
)
def test_a_class_may_be_called_as_a_split(tmp_path: Path, paths: str, labels: list[str]) -> None:
    found = meaning(tmp_path, paths)
    assert sorted(label for _, label in found if label) == labels
    assert {split for split, _ in found} == {None}


def test_below_a_split_a_class_may_be_called_as_a_split(tmp_path: Path) -> None:
    paths = "train/test/1.jpg train/dog/2.jpg test/test/3.jpg test/dog/4.jpg"
    assert meaning(tmp_path, paths) == {
        ("train", "test"): 1,
        ("train", "dog"): 1,
        ("test", "test"): 1,
        ("test", "dog"): 1,
    }


def test_a_test_folder_beside_class_folders_keeps_both(tmp_path: Path) -> None:
    found = meaning(tmp_path, "cat/1.jpg dog/2.jpg test/cat/3.jpg test/dog/4.jpg")
    assert found == {(None, "cat"): 1, (None, "dog"): 1, ("test", "cat"): 1, ("test", "dog"): 1}


@pytest.mark.parametrize("test", ["test/3.jpg", "test/images/3.jpg", "test/test/3.jpg", "test/unknown/3.jpg"])
def test_a_test_without_the_classes_of_train_is_unlabelled(tmp_path: Path, test: str) -> None:
    found = meaning(tmp_path, f"train/cat/1.jpg train/dog/2.jpg {test}")
    assert found == {("train", "cat"): 1, ("train", "dog"): 1, ("extra", None): 1}
    (caution,) = find(tmp_path).cautions
    assert caution == (
        "test/ cannot be the test split, because no folder in it is a class of train. Its files (1) train without "
        "labels. To make it the test split, give it train's classes."
    )


def test_a_folder_beside_the_splits_is_no_class(tmp_path: Path) -> None:
    paths = "seg_train/cat/1.jpg seg_train/dog/2.jpg seg_test/cat/3.jpg seg_test/dog/4.jpg seg_pred/5.jpg"
    assert meaning(tmp_path, paths) == CATS_AND_DOGS | {("extra", None): 1}
    found = find(tmp_path)
    assert found.layout == (
        f"{tmp_path}: seg_train/ and seg_test/ with 2 class folders (cat, dog); 1 file without labels in seg_pred/"
    )
    assert found.cautions == [
        "seg_pred/ is no class, because it is beside the split folders. Its files (1) train without labels. Move it "
        "elsewhere to leave it out."
    ]


@pytest.mark.parametrize(
    "paths",
    [
        "train/1.jpg test/2.jpg",
        "train/images/1.jpg test/images/2.jpg",
        "train/train/1.jpg test/test/2.jpg",
        "images/train/1.jpg images/test/2.jpg labels/train/1.txt labels/test/2.txt",
    ],
)
def test_images_without_labels_keep_their_splits(tmp_path: Path, paths: str) -> None:
    assert meaning(tmp_path, paths) == {("train", None): 1, ("test", None): 1}
    assert meaning(tmp_path, "", labels=False) == {("train", None): 1, ("test", None): 1}


def test_labels_that_are_off_keep_the_splits(tmp_path: Path) -> None:
    paths = "train/cat/1.jpg train/dog/2.jpg test/3.jpg more/4.jpg"
    assert meaning(tmp_path, paths, labels=False) == {("train", None): 2, ("test", None): 1, (None, None): 1}
    assert "train/ and test/; labels are off (prepare.labels: false)" in find(tmp_path, labels=False).layout


@pytest.mark.parametrize(
    ("paths", "layout"),
    [
        ("1.jpg", "no class folders"),
        ("images/1.jpg", "/images: no class folders"),
        ("a/b/cat/1.jpg a/b/dog/2.jpg", "/a/b: 2 class folders (cat, dog)"),
        ("cat/1.jpg cat/old/2.jpg", "1 class folder (cat); deeper folders are no classes"),
        (" ".join(f"{name}/1.jpg" for name in "abcdef"), "6 class folders (a, b, c, d, e, …)"),
        ("cat/1.jpg dog/2.jpg 3.jpg", "2 class folders (cat, dog); 1 file without labels in no folder"),
        (
            "README LICENSE a.csv cat/1.jpg dog/2.jpg",
            "2 class folders (cat, dog); 3 files left out by name, such as text",
        ),
        ("train/1.jpg val/1.jpg", "train/ and val/ with no class folders"),
    ],
)
def test_what_was_understood_is_one_line(tmp_path: Path, paths: str, layout: str) -> None:
    meaning(tmp_path, paths)
    assert find(tmp_path).layout.endswith(layout)


@pytest.mark.parametrize(
    ("paths", "caution"),
    [
        (
            "test/1.jpg cat/2.jpg",
            "test/ is read as a class. Rename the folder, or move it elsewhere, if that is wrong.",
        ),
        ("images/1.jpg masks/1.png", "images/ is read as a class. Rename the folder, or move it elsewhere, if"),
        (
            "cat/train/1.jpg cat/test/2.jpg dog/train/3.jpg",
            "test/ and train/ inside class folders are not read as splits.",
        ),
    ],
)
def test_what_may_be_meant_otherwise_is_told(tmp_path: Path, paths: str, caution: str) -> None:
    meaning(tmp_path, paths)
    (warning,) = find(tmp_path).cautions
    assert warning.startswith(caution)


def test_files_of_other_kinds_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no images, only other files such as License\. Add images\."):
        meaning(tmp_path, "notes.TXT data.yaml a/labels.json README.md License a/imdb.mat all.zip")
