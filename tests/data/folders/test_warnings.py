"""Folders as people have them are prepared, and the user is warned of what their labels cannot do."""

import os
from collections import Counter
from pathlib import Path

import pytest

from data import DataError
from data.decoding.decode import Preprocess
from data.prepare import prepare
from data.shards import Manifest, Prepared
from tests.data.conftest import write_image


def fill(raw: Path, **images: int) -> None:
    """So many images in each folder, all different."""
    number = len(list(raw.rglob("*.png")))
    for folder, n in images.items():
        for _ in range(n):
            write_image(raw / folder / f"{number:03d}.png", number)
            number += 1


def prepared(root: Path, labels: bool = True, max_bad_fraction: float = 0.0) -> Manifest:
    return prepare(
        root / "raw",
        root / "out",
        name="noise",
        preprocess=Preprocess(6),
        val=0.1,
        test=0.2,
        max_bad_fraction=max_bad_fraction,
        labels=labels,
        seed=0,
        workers=1,
    )


def rows(root: Path) -> dict[tuple[str, str | None], int]:
    """(split, label) → images, as they are prepared."""
    p = Prepared(root / "out")
    names = [*p.manifest.classes, None]
    return Counter((s, names[label]) for s in ("train", "val", "test") for label in p.labels(p.rows(s)))


def test_labels_beside_a_flat_test_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "raw", **{"train/cat": 20, "train/dog": 22, "test": 28})
    manifest = prepared(tmp_path)
    assert manifest.splits == {"train": 58, "val": 4, "test": 8}
    assert manifest.labelled == {"train": 30, "val": 4, "test": 8}  # val and test are drawn from labelled images alone
    err = capsys.readouterr().err
    assert (
        f"{tmp_path}/raw: train/ with 2 class folders (cat, dog); 28 files without labels in test/; "
        "val (10 %) and test (20 %) are drawn from train."
    ) in err.splitlines()
    assert "Warning: test/ cannot be the test split, because no folder in it is a class of train. Its files (28)" in err


def test_a_copy_of_the_folder_in_itself_takes_no_labels_away(tmp_path: Path) -> None:
    layout = {f"{split}/{name}": 5 for split in ("train", "val", "test") for name in ("NORMAL", "PNEUMONIA")}
    fill(tmp_path / "raw", **layout)
    once = prepared(tmp_path)
    for path in list((tmp_path / "raw").rglob("*.png")):
        copy = tmp_path / "raw/chest_xray" / path.relative_to(tmp_path / "raw")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    twice = prepared(tmp_path)
    assert twice.duplicates == 30
    assert twice.digest == once.digest


@pytest.mark.parametrize(("each", "split"), [(1, "test"), (2, "val")])
def test_one_or_two_images_per_class_are_told_what_works(tmp_path: Path, each: int, split: str) -> None:
    fill(tmp_path / "raw", **{f"class{number}": each for number in range(10)})
    with pytest.raises(DataError) as caught:
        prepared(tmp_path)
    assert str(caught.value) == (
        f"The folder {tmp_path}/raw leaves the {split} split without an image, because every class has only 1 or "
        "2 images. Add images until there are 3 per class, or set prepare.labels: false in params.yaml, so that the "
        "split is chosen without regard to classes."
    )
    assert prepared(tmp_path, labels=False).splits["test"] == 2 * each


def test_train_with_too_few_images_is_not_told_to_leave_labels_out(tmp_path: Path) -> None:
    fill(tmp_path / "raw", **{"train/cat": 1, "train/dog": 1, "test/cat": 10, "test/dog": 10})
    with pytest.raises(
        DataError, match=r"the val split without an image, because train has fewer than 3\. Add images\.$"
    ):
        prepared(tmp_path)


def test_classes_that_train_lacks_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(
        tmp_path / "raw",
        **{"train/cat": 10, "train/dog": 10, "test/cat": 5, "test/dog": 5, "test/emu": 3, "test/fox": 7},
    )
    prepared(tmp_path)
    assert (
        "Warning: 2 classes of test have no image in train (emu: 3, fox: 7), so accuracy on test cannot be higher "
        "than 50.0%. Add images of them to train.\n"
    ) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("images", "warning"),
    [
        ({"cat": 12}, "All labels are of one class. Accuracy is not measured, because it needs two classes."),
        (
            {"cat": 12, "dog": 12, "emu": 1, "fox": 1},
            "2 classes of 4 have only 1 or 2 images (emu: 1, fox: 1), all of them in train. Accuracy says nothing "
            "about them. Add images until there are 3 per class.",
        ),
        (
            {"train/cat": 12, "train/dog": 12, "test/cat": 12},
            "Accuracy is not measured, because it needs labelled images of two classes in each split. test has fewer. "
            "Add some.",
        ),
    ],
)
def test_labels_that_measure_nothing_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], images: dict[str, int], warning: str
) -> None:
    fill(tmp_path / "raw", **images)
    prepared(tmp_path)
    assert f"Warning: {warning}\n" in capsys.readouterr().err


def test_good_labels_are_not_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "raw", **{"train/cat": 10, "train/dog": 10, "test/cat": 5, "test/dog": 5})
    prepared(tmp_path)
    assert "Warning" not in capsys.readouterr().err
    assert rows(tmp_path) == {
        ("train", "cat"): 9,
        ("train", "dog"): 9,
        ("val", "cat"): 1,
        ("val", "dog"): 1,
        ("test", "cat"): 5,
        ("test", "dog"): 5,
    }


def test_a_val_folder_of_copies_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "raw", **{"train/cat": 10, "train/dog": 10, "test/cat": 5, "test/dog": 5})
    for path in list((tmp_path / "raw/test").rglob("*.png")):
        copy = tmp_path / "raw/val" / path.relative_to(tmp_path / "raw/test")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert prepared(tmp_path).splits == {"train": 18, "val": 2, "test": 10}
    assert (
        "Warning: No image in the val folder can be used: all are bad, or copies of images in another split. The split "
        "is taken from other images.\n"
    ) in capsys.readouterr().err


def test_odd_entries_are_set_aside_one_by_one(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    fill(raw, **{"train/cat": 20, "train/dog": 20, "test/cat": 5, "test/dog": 5})
    os.mkfifo(raw / "train/cat/pipe.png")
    (raw / "train/dog/gone.png").symlink_to("nowhere.png")
    (raw / "train/dog/zero.png").symlink_to("/dev/zero")
    (raw / "test/loop").symlink_to("..")
    Path(os.fsdecode(os.fsencode(raw) + b"/test/dog/caf\xe9.png")).touch()
    manifest = prepared(tmp_path, max_bad_fraction=0.1)
    assert (manifest.splits, manifest.classes) == ({"train": 36, "val": 4, "test": 10}, ("cat", "dog"))
    assert (tmp_path / "out/quarantine.csv").read_text(encoding="utf-8").splitlines() == [
        "path,reason",
        "test/dog/caf\\xe9.png,the name is not valid UTF-8",
        "test/loop,symlink loop",
        "train/cat/pipe.png,not a regular file",
        "train/dog/gone.png,dangling symlink",
        "train/dog/zero.png,not a regular file",
    ]
