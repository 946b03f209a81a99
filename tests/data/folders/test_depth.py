"""A folder of images of more than 8 bits: its range is found, kept in the manifest, and loses no grey level."""

import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data import DataError
from data.decoding.decode import Preprocess, read
from data.folders import depth
from data.prepare import prepare
from data.shards import Manifest, Prepared
from tests.data.conftest import write_image
from tests.data.wide import SIDE, png, spread, tiff

Form = Callable[[NDArray[Any]], bytes]


def write(folder: Path, images: Sequence[NDArray[Any]], form: Form, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images, first):
        (folder / f"{number:04d}.tif").write_bytes(form(image))


def run(root: Path, given: tuple[float, float] | None = None, **options: Any) -> Manifest:
    about: dict[str, Any] = {
        "name": "wide",
        "val": 0.1,
        "test": 0.2,
        "max_bad_fraction": 0.1,
        "labels": True,
        "seed": 0,
    }
    preprocess = Preprocess(SIDE, range=given)
    return prepare(root / "raw", root / "out", **about | {"preprocess": preprocess, "workers": 1} | options)


def stored(root: Path, n: int = 12) -> NDArray[np.uint8]:
    """(n, 16, 16, 3)"""
    return Prepared(root / "out").images(np.arange(n)).transpose(0, 2, 3, 1)


TRIALS: dict[str, tuple[list[NDArray[Any]], Form, tuple[float, float]]] = {
    "12 bits in 16": (spread(0, 4095, "<u2"), png, (0, 4095)),
    "12 bits in a TIFF": (spread(0, 4095, "<u2"), tiff, (0, 4095)),
    "micrographs": (spread(684, 1208, "<u2"), png, (684, 1208)),
    "thermal": (spread(27000, 28500, "<u2"), tiff, (27000, 28500)),
    "all of 16 bits": (spread(0, 65535, "<u2"), png, (0, 65535)),
    "32-bit integers of 8 bits": (spread(0, 255, "<i4"), tiff, (0, 255)),
    "signed 16 bits": (spread(-1000, 3000, "<i2"), tiff, (-1000, 3000)),
    "unsigned 32 bits": (spread(0, 4e9, "<u4"), tiff, (0, 4e9)),
    "floats a little above 1": (spread(0, 1.02, "<f4"), tiff, (0, float(np.float32(1.02)))),
    "Kelvin": (spread(280, 310, "<f4"), tiff, (280, 310)),
    "12 bits in colour": (spread(0, 4095, "<u2", channels=3), png, (0, 4095)),
    "14 bits in a TIFF in colour": (spread(0, 16383, "<u2", channels=3), tiff, (0, 16383)),
    "big-endian": (spread(684, 1208, ">u2"), tiff, (684, 1208)),
    "big-endian floats, compressed": (spread(280, 310, ">f4"), lambda image: tiff(image, deflated=True), (280, 310)),
}


@pytest.mark.parametrize("trial", TRIALS)
def test_every_grey_level_is_kept(trial: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, form, (low, high) = TRIALS[trial]
    write(tmp_path / "raw", images, form)
    manifest = run(tmp_path)
    wide = np.stack(images).astype(np.float64)
    colours = wide if wide.ndim == 4 else wide[..., None].repeat(3, axis=-1)
    expected = np.rint(np.clip((colours - low) / (high - low), 0, 1) * 255)
    found = stored(tmp_path)
    assert np.abs(found - expected).max() <= 1
    assert len(np.unique(found)) == 256
    assert manifest.preprocess.range == (low, high)
    assert manifest.quarantined == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "more than 8 bits" in line]
    shown = depth.shown((low, high))
    assert line == f"12 images have more than 8 bits: values {shown} become 0 to 255 (prepare.range: auto)."


def test_how_a_range_is_shown() -> None:
    assert depth.shown((684.0, 1208.0)) == "684 to 1,208"
    assert depth.shown((0.0, 1.0199999809)) == "0 to 1.02"


def test_the_range_travels_in_the_manifest_and_is_part_of_the_digest(tmp_path: Path) -> None:
    write(tmp_path / "raw", spread(684, 1208, "<u2"), png)
    first = run(tmp_path)
    assert json.loads((tmp_path / "out/manifest.json").read_text())["preprocess"]["range"] == [684, 1208]
    assert Prepared(tmp_path / "out").manifest == first
    assert run(tmp_path, given=(600, 1300)).digest != first.digest


def test_without_deep_images_there_is_no_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        write_image(tmp_path / f"raw/{number}.png", number)
        Image.open(tmp_path / f"raw/{number}.png").save(tmp_path / f"raw/{number}.tif")
    assert run(tmp_path).preprocess.range is None
    assert "8 bits" not in capsys.readouterr().out


@pytest.mark.parametrize("channels", [None, 3])
def test_an_8_bit_image_in_16_bits_equals_its_original(tmp_path: Path, channels: int | None) -> None:
    images = spread(0, 255, "u1", channels=channels)
    write(tmp_path / "raw", images, lambda image: png(image.astype(np.uint16) * 257))
    run(tmp_path)
    for number, image in enumerate(images):
        narrow = io.BytesIO()
        Image.fromarray(image).save(narrow, "PNG")
        np.testing.assert_array_equal(stored(tmp_path)[number], np.asarray(read(narrow.getvalue())))


def test_a_range_that_is_nearly_filled_is_the_nominal_one(tmp_path: Path) -> None:
    write(tmp_path / "raw", spread(300, 3900, "<u2"), png)
    assert run(tmp_path).preprocess.range == (0, 4095)


def test_one_hot_pixel_or_one_odd_image_changes_nothing(tmp_path: Path) -> None:
    images = spread(684, 1208, "<u2")
    write(tmp_path / "raw", images, png)
    expected = run(tmp_path).preprocess.range
    hot = images[0].copy()
    hot[3, 3] = 65535
    (tmp_path / "raw/0000.tif").write_bytes(png(hot))
    assert run(tmp_path).preprocess.range == expected
    (tmp_path / "raw/0000.tif").write_bytes(png(spread(0, 65535, "<u2", n=1)[0]))
    assert run(tmp_path).preprocess.range == expected


def test_infinite_values_and_nan_cost_their_pixels_alone(tmp_path: Path) -> None:
    images = spread(280, 310, "<f4")
    odd = images[0].copy()
    odd[0, :3] = np.inf, -np.inf, np.nan
    write(tmp_path / "raw", [odd, *images[1:]], tiff)
    run(tmp_path)
    found, expected = stored(tmp_path)[0, ..., 0], np.rint((images[0] - 280) / 30 * 255)
    assert found[0, :3].tolist() == [255, 0, 0]
    assert np.abs(found[1:] - expected[1:]).max() <= 1


def test_the_same_range_whatever_the_workers_and_the_times_asked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write(tmp_path / "raw", [rng.normal(900, 60, (SIDE, SIDE)).astype("<u2") for _ in range(60)], png)
    ranges = [run(tmp_path, workers=workers).preprocess.range for workers in (1, 2, 2)]
    assert ranges[0] == ranges[1] == ranges[2]


def test_kinds_whose_values_differ_are_refused_or_mapped_by_the_params(tmp_path: Path) -> None:
    write(tmp_path / "raw", spread(684, 1208, "<u2"), png)
    write(tmp_path / "raw", spread(0, 1, "<f4", n=5), tiff, first=12)
    with pytest.raises(DataError) as caught:
        run(tmp_path)
    assert str(caught.value) == (
        f"The folder {tmp_path}/raw mixes images of more than 8 bits whose values mean different things: 12 of "
        "16-bit integers (684 to 1,208) and 5 of floats (0 to 1). Convert them to one kind, or set "
        "prepare.range in params.yaml to the [low, high] that suits all."
    )
    assert run(tmp_path, given=(0, 1208)).images == 17


def test_8_bit_images_beside_deep_ones_stay_as_they_are(tmp_path: Path) -> None:
    write(tmp_path / "raw", spread(684, 1208, "<u2"), png)
    write_image(tmp_path / "raw/a.png", 7, size=(SIDE, SIDE))
    run(tmp_path)
    np.testing.assert_array_equal(stored(tmp_path, 13)[12], np.asarray(Image.open(tmp_path / "raw/a.png")))


def test_a_deep_image_of_one_value_does_not_cost_the_folder(tmp_path: Path) -> None:
    for number in range(12):
        write_image(tmp_path / f"raw/{number}.png", number)
    write(tmp_path / "raw", [np.full((SIDE, SIDE), 700, "<u2")], png)
    manifest = run(tmp_path)
    assert (manifest.images, manifest.quarantined, manifest.preprocess.range) == (12, 1, None)
    line = (tmp_path / "out/quarantine.csv").read_text()
    assert (
        '0000.tif,"more than 8 bits: its values are 16-bit integers, and no range says which of them become 0 and 255; '
        'convert it to 8 bits"'
    ) in line


def test_lost_grey_levels_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "raw", spread(0, 65535, "<u2"), png)
    write(tmp_path / "raw", spread(684, 1208, "<u2", n=6), png, first=12)
    run(tmp_path)
    assert (
        "Warning: 6 of 18 images of more than 8 bits keep fewer than 16 grey levels. Set prepare.range to the values "
        "that matter (now 0 to 65,535).\n"
    ) in capsys.readouterr().err
    shutil.rmtree(tmp_path / "raw")
    write(tmp_path / "raw", spread(684, 1208, "<u2"), png)
    run(tmp_path)
    assert "Warning" not in capsys.readouterr().err
