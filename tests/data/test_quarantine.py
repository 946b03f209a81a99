"""Bad files are set aside and listed; a folder that cannot be prepared is refused in one sentence."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data import DataError
from data.decoding.decode import Preprocess
from data.prepare import prepare
from data.shards import Prepared
from tests.data.conftest import write_image
from tests.data.noise import OPTIONS, fill, run, table


def test_bad_files_are_set_aside_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "raw"
    fill(raw, 12)
    whole = (raw / "000.png").read_bytes()
    for name in "abcd":
        (raw / f"{name}.jpg").write_bytes(b"no image")
    (raw / "empty.png").touch()
    (raw / "cut.png").write_bytes(whole[:120])
    (raw / "gone.png").symlink_to("nowhere")
    manifest = run(tmp_path)
    assert (manifest.images, manifest.quarantined) == (12, 7)
    reasons = {row["path"]: row["reason"] for row in table(tmp_path / "out/quarantine.csv")}
    assert list(reasons) == ["a.jpg", "b.jpg", "c.jpg", "cut.png", "d.jpg", "empty.png", "gone.png"]
    assert reasons["cut.png"].startswith("truncated: ")
    assert reasons["empty.png"] == "empty: the file is empty"
    assert reasons["gone.png"] == "dangling symlink"
    lines = capsys.readouterr().err.splitlines()
    assert "Quarantined, not an image: 4 (a.jpg, b.jpg, c.jpg)" in lines
    assert "Quarantined, truncated: 1 (cut.png)" in lines


def test_too_many_bad_files_stop_it_and_leave_the_list(tmp_path: Path) -> None:
    fill(tmp_path / "raw", 15)
    for number in range(5):
        (tmp_path / f"raw/bad{number}.png").touch()
    with pytest.raises(DataError) as caught:
        run(tmp_path, max_bad_fraction=0.24)
    assert str(caught.value) == (
        f"The folder {tmp_path}/raw has 5 bad files of 20 (25.0%). They are listed in {tmp_path}/out/quarantine.csv. "
        "Remove them, or raise prepare.max_bad_fraction in params.yaml (now 0.24)."
    )
    assert len(table(tmp_path / "out/quarantine.csv")) == 5
    assert [path.name for path in tmp_path.iterdir()].count("out") == 1
    assert sorted(os.listdir(tmp_path)) == ["out", "raw"]
    with pytest.raises(DataError, match="Run the prepare stage"):
        Prepared(tmp_path / "out")
    run(tmp_path, max_bad_fraction=0.25)  # the list it left is in nobody's way


def test_three_images_are_too_few(tmp_path: Path) -> None:
    fill(tmp_path / "raw", 3)
    with pytest.raises(
        DataError, match=r"raw has only 3 images that can be used\. Add images until there are at least 10\."
    ):
        run(tmp_path)


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    for number in range(10):
        write_image(tmp_path / f"raw/class{number}/a.png", number)
    with pytest.raises(DataError, match=r"leaves the test split without an image, .* 1 or 2 images"):
        run(tmp_path, val=0.0)
    shutil.rmtree(tmp_path / "raw")
    fill(tmp_path / "raw/test", 12)
    with pytest.raises(DataError, match=r"leaves the train split without an image\. Add images\.$"):
        run(tmp_path)


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.1), (0.5, 0.5), (0.1, 1.0)])
def test_fractions_that_leave_no_train_are_refused(tmp_path: Path, val: float, test: float) -> None:
    with pytest.raises(DataError, match=r"prepare\.val is .* prepare\.test"):
        run(tmp_path, val=val, test=test)


def test_no_folder_of_the_user_is_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "raw", 10)
    fill(tmp_path / "out", 1)
    with pytest.raises(DataError, match=r"out exists and is no prepared dataset"):
        run(tmp_path)
    assert os.listdir(tmp_path / "out") == ["000.png"]
    with pytest.raises(DataError, match=r"lies inside the raw folder"):
        prepare(tmp_path / "raw", tmp_path / "raw/out", **OPTIONS)


class Deadly(Preprocess):
    """Kills its worker as the kernel does when memory runs out."""

    def fit(self, image: Image.Image) -> NDArray[np.uint8]:
        if image.width == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(image)


def test_a_killed_worker_is_named_by_its_files(tmp_path: Path) -> None:
    fill(tmp_path / "raw", 30)
    write_image(tmp_path / "raw/012x.png", 12, size=(9, 8))
    with pytest.raises(DataError, match=r"killed a worker process.*012x\.png.*more memory"):
        run(tmp_path, preprocess=Deadly(6))
    assert sorted(os.listdir(tmp_path)) == ["raw"]
