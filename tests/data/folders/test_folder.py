"""Which files a folder holds, and what their folders say of them."""

import os
import socket
import unicodedata
from pathlib import Path

import pytest

from data import DataError
from data.folders.folder import find


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def found(root: Path, labels: bool = True) -> dict[str, tuple[str | None, str | None]]:
    return {file.path: (file.split, file.label) for file in find(root, labels).files}


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.png", "Z.JPG")
    assert found(tmp_path) == {"Z.JPG": (None, None), "a.png": (None, None), "b.jpg": (None, None)}


def test_class_folders_label_and_files_beside_them_do_not(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/old/indoor/2.jpg", "dog/1.jpg", "x.jpg")
    assert found(tmp_path) == {
        "cat/1.jpg": (None, "cat"),
        "cat/old/indoor/2.jpg": (None, "cat"),
        "dog/1.jpg": (None, "dog"),
        "x.jpg": (None, None),
    }


def test_split_folders_come_before_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "Validation/cat/a/2.jpg", "TEST/3.jpg", "valid/4.jpg", "val/dog/5.jpg")
    assert found(tmp_path) == {
        "TEST/3.jpg": ("test", None),
        "Validation/cat/a/2.jpg": ("val", "cat"),
        "train/cat/1.jpg": ("train", "cat"),
        "val/dog/5.jpg": ("val", "dog"),
        "valid/4.jpg": ("val", None),
    }


@pytest.mark.parametrize("name", ["unlabeled", "unlabelled", "Unlabelled"])
def test_unlabelled_images_train_where_there_are_splits(tmp_path: Path, name: str) -> None:
    touch(tmp_path, f"{name}/a/1.jpg", "cat/2.jpg")
    assert found(tmp_path)[f"{name}/a/1.jpg"] == (None, None)
    touch(tmp_path, "train/cat/3.jpg", f"train/{name}/4.jpg")
    assert found(tmp_path)[f"{name}/a/1.jpg"] == ("train", None)
    assert found(tmp_path)[f"train/{name}/4.jpg"] == ("train", None)


def test_labels_can_be_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "dog/2.jpg")
    assert found(tmp_path, labels=False) == {"dog/2.jpg": (None, None), "train/cat/1.jpg": ("train", None)}


def test_files_of_the_system_are_no_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", ".hidden.jpg", ".git/b.jpg", "Thumbs.db", "c/desktop.ini", "__MACOSX/c/a.jpg")
    assert list(found(tmp_path)) == ["a.jpg"]


def test_the_order_is_by_path(tmp_path: Path) -> None:
    paths = ["b/1.jpg", "a/2.jpg", "a.jpg", "a/10.jpg", "c.jpg"]
    touch(tmp_path, *paths)
    assert list(found(tmp_path)) == sorted(paths)


def test_symlinks_are_followed_once_and_loops_are_not(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    touch(root, "dog/1.jpg", "dog/deep/2.jpg")
    touch(outside, "3.jpg")
    (root / "cat").symlink_to(outside)
    (root / "a-dog").symlink_to("dog")
    (root / "dog/self").symlink_to(".")
    (root / "dog/deep/up").symlink_to(tmp_path)
    (root / "knot.jpg").symlink_to("knot.jpg")
    (root / "gone.jpg").symlink_to("nowhere.jpg")
    (root / "copy.jpg").symlink_to("dog/1.jpg")
    result = find(root)
    assert [file.path for file in result.files] == ["cat/3.jpg", "copy.jpg", "dog/1.jpg", "dog/deep/2.jpg"]
    assert result.rejected == [
        ("a-dog", "symlink to a folder already walked"),
        ("dog/deep/up", "symlink loop"),
        ("dog/self", "symlink loop"),
        ("gone.jpg", "dangling symlink"),
        ("knot.jpg", "symlink loop"),
    ]


def test_two_links_to_each_other_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/b").symlink_to(tmp_path / "b")
    (tmp_path / "b/a").symlink_to(tmp_path / "a")
    assert list(found(tmp_path)) == ["a/1.jpg", "b/2.jpg"]


def test_pipes_and_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # a socket's path is at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        rejected = find(tmp_path).rejected
    assert rejected == [("pipe.jpg", "not a regular file"), ("socket.jpg", "not a regular file")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_closed_folder_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "closed/b.jpg")
    (tmp_path / "closed").chmod(0)
    rejected = find(tmp_path).rejected
    (tmp_path / "closed").chmod(0o700)
    assert rejected == [("closed", "the folder cannot be listed: Permission denied")]


def test_composed_and_decomposed_names_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    touch(tmp_path, f"train/{composed}/日本.jpg", f"test/{decomposed}/ü.jpg")
    assert set(found(tmp_path).values()) == {("train", composed), ("test", composed)}
    assert f"test/{decomposed}/ü.jpg" in found(tmp_path)  # the path stays as it is on the disk


def test_names_that_are_not_utf8_are_rejected_and_shown_escaped(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.jpg")).touch()
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/c\xe9"))
    touch(folder, "d.jpg")
    result = find(tmp_path)
    assert [file.path for file in result.files] == ["a.jpg"]
    assert result.rejected == [
        ("b\\xff.jpg", "the name is not valid UTF-8"),
        ("c\\xe9", "the name is not valid UTF-8"),
    ]


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist\. Give a folder"):
        find(tmp_path / "nowhere")
    touch(tmp_path, "file", "empty/deeper/.hidden")
    with pytest.raises(DataError, match=r"file is a file, not a folder"):
        find(tmp_path / "file")
    with pytest.raises(DataError, match=r"empty holds no files\. Put images into it"):
        find(tmp_path / "empty")
    (tmp_path / "empty/gone").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"holds no files \(gone: dangling symlink\)"):
        find(tmp_path / "empty")
