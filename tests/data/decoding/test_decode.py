"""Every kind of image file is read as it shows, and becomes an image of the stored size."""

import ast
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from data.decoding.decode import Preprocess
from serving.rollout import archive
from tests.data.decoding.images import RGB, RNG, SMOOTH, encode, kind, pixels

CLOTHING = Path(__file__).parents[3] / "../shared/datasets/clothing.zip"


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_keep_every_value(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(RGB), form, **options)), RGB)


def test_jpeg_is_what_pillow_decodes() -> None:
    data = encode(Image.fromarray(SMOOTH), "JPEG", quality=95)
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data))))
    assert np.abs(pixels(data).astype(int) - SMOOTH).mean() < 2


def test_gif_gives_its_first_frame() -> None:
    red, blue = Image.new("RGB", (5, 4), "red"), Image.new("RGB", (5, 4), "blue")
    data = encode(red, "GIF", save_all=True, append_images=[blue])
    assert (pixels(data) == (255, 0, 0)).all()


def test_a_phone_photo_with_a_second_picture_gives_its_first() -> None:
    first, second = Image.new("RGB", (5, 4), "red"), Image.new("RGB", (3, 2), "blue")
    data = encode(first, "MPO", save_all=True, append_images=[second])
    assert np.abs(pixels(data).astype(int) - (255, 0, 0)).max() <= 1
    assert pixels(data).shape == (4, 5, 3)


def test_other_formats_are_not_opened() -> None:
    assert kind(encode(Image.fromarray(RGB), "PPM")) == "not an image"
    assert kind(encode(Image.fromarray(RGB), "ICO")) == "not an image"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(RGB), form, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert expected.size == ((21, 13) if orientation < 5 else (13, 21))
    np.testing.assert_array_equal(pixels(data), np.asarray(expected))


def test_a_broken_exif_block_does_not_cost_the_photo() -> None:
    data = encode(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0not a TIFF header")
    np.testing.assert_array_equal(pixels(data), RGB)


def test_grey_has_three_equal_channels() -> None:
    expected = np.repeat(RGB[:, :, :1], 3, axis=2)
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(RGB[:, :, 0]), "PNG")), expected)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    eight = np.arange(256, dtype=np.uint8).reshape(16, 16)
    sixteen = Image.fromarray(eight.astype(np.uint16) * 257)
    assert sixteen.mode == "I;16"
    for form in ("PNG", "TIFF"):
        np.testing.assert_array_equal(pixels(encode(sixteen, form), (0, 65535))[:, :, 0], eight)
    wide = Image.fromarray(eight.astype(np.int32) * 257)
    assert wide.mode == "I"
    np.testing.assert_array_equal(pixels(encode(wide, "TIFF"), (0, 65535))[:, :, 2], eight)


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_floats_are_mapped_by_the_range(top: float) -> None:
    values = np.array([[0, top / 5, np.nan], [top, -1, top / 255]], np.float32)
    found = pixels(encode(Image.fromarray(values), "TIFF"), (0, top))[:, :, 1]
    np.testing.assert_array_equal(found, [[0, 51, 0], [255, 0, 1]])


def test_one_bit_is_black_and_white() -> None:
    bits = Image.fromarray(RGB[:, :, 0]).point(lambda value: 255 * (value > 127)).convert("1")
    np.testing.assert_array_equal(pixels(encode(bits, "PNG"))[:, :, 0], 255 * (RGB[:, :, 0] > 127))


def test_a_palette_is_looked_up() -> None:
    indexed = Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(pixels(encode(indexed, "PNG")), np.asarray(indexed.convert("RGB")))


def test_a_transparent_palette_colour_is_white() -> None:
    indexed = Image.new("P", (2, 1))
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.putpixel((1, 0), 1)
    assert pixels(encode(indexed, "PNG", transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_white(mode: str) -> None:
    alpha = RGB[:, :, 2]
    colour = Image.fromarray(RGB).convert(mode[:-1])
    image = colour.convert(mode)
    image.putalpha(Image.fromarray(alpha))
    share = alpha[:, :, None] / 255
    expected = np.asarray(colour.convert("RGB")) * share + 255 * (1 - share)
    assert np.abs(pixels(encode(image, "PNG")) - expected).max() <= 1


def test_cmyk_is_converted_by_its_inks() -> None:
    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.abs(pixels(encode(inks, "TIFF")).astype(int) - (0, 255, 255)).max() == 0
    adobe = encode(inks, "JPEG", quality=100)  # Pillow writes the inverted kind, with Adobe's marker
    assert b"Adobe" in adobe
    assert np.abs(pixels(adobe).astype(int) - (0, 255, 255)).max() <= 2


def test_the_decoder_stands_alone_in_the_archive_of_the_server() -> None:
    for part, file in archive.CODE.items():
        for node in ast.walk(ast.parse(file.read_text()) if part.startswith("data/") else ast.Module([], [])):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                for module in names:
                    root = module.partition(".")[0]
                    assert root in {"numpy", "PIL", "data"} | sys.stdlib_module_names
                    assert root != "data" or f"{module.replace('.', '/')}.py" in archive.CODE


def test_an_image_of_the_stored_size_keeps_its_values() -> None:
    found = Preprocess(13)(encode(Image.fromarray(RGB), "PNG"))
    np.testing.assert_array_equal(found, RGB[:, 4:17].transpose(2, 0, 1))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous


def test_box_filter_is_the_mean_of_each_block() -> None:
    image = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    expected = image.reshape(4, 4, 4, 4, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    found = Preprocess(4, filter="box")(encode(Image.fromarray(image), "PNG"))
    assert np.abs(found - expected).max() <= 1  # Pillow rounds after each direction


@pytest.mark.parametrize("shape", [(40, 80), (80, 40), (10, 30)])
def test_cropping_first_equals_resizing_first(shape: tuple[int, int]) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (*shape, 3), dtype=np.uint8))
    scale = 20 / min(shape)  # whole widths: the same grid of samples
    whole = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (whole.width - 20) // 2, (whole.height - 20) // 2
    expected = np.asarray(whole.crop((left, top, left + 20, top + 20)), dtype=int).transpose(2, 0, 1)
    assert np.abs(Preprocess(20)(encode(image, "PNG")) - expected).max() <= 1  # Pillow's rounding


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (1, 1)])
def test_extreme_shapes_are_images_like_others(size: tuple[int, int]) -> None:
    found = Preprocess(32)(encode(Image.new("RGB", size, (1, 2, 3)), "PNG"))
    assert (found == np.array([1, 2, 3])[:, None, None]).all()


def test_the_specification_survives_json() -> None:
    preprocess = Preprocess(96, filter="lanczos")
    assert Preprocess.from_json(preprocess.to_json()) == preprocess
    assert json.loads(preprocess.to_json())["resize"] == "shorter side"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": 2.5}, "size is 2.5"),
        ({"size": True}, "size is True"),
        ({"size": 8, "filter": "nearest"}, "filter is 'nearest'. Allowed: bilinear"),
        ({"size": 8, "resize": "stretch"}, "resize is 'stretch'. Allowed: shorter side"),
        ({"size": 8, "crop": "random"}, "crop is 'random'. Allowed: centre"),
    ],
)
def test_a_wrong_specification_names_key_value_and_allowed(spec: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Preprocess(**spec)


@pytest.mark.parametrize("text", ['{"size": 8}', '{"size": 8, "colour": 1}', "[8]", "{"])
def test_json_with_other_keys_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"missing or unknown|Expecting"):
        Preprocess.from_json(text)


@pytest.mark.skipif(not CLOTHING.exists(), reason="the clothing photos are not beside this checkout")
def test_real_photos_equal_pillow() -> None:
    with zipfile.ZipFile(CLOTHING) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::76]
        assert len(names) >= 45
        for name in names:
            data = archive.read(name)
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
            np.testing.assert_array_equal(pixels(data), np.asarray(image))
            assert Preprocess(64)(data).std() > 1
