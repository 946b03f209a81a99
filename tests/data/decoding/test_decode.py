"""Every kind of file that comes, and every way it can be broken."""

import ast
import io
import json
import pickle
import struct
import sys
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from data.decoding.decode import Preprocess, read
from data.decoding.image_file import MAX_PASSES, MAX_PIXELS, Unusable, scans
from serving.rollout import archive

CLOTHING = Path(__file__).parents[3] / "../shared/datasets/clothing.zip"
KINDS = {"not an image", "corrupt", "truncated", "bomb", "unreadable"}
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (13, 21, 3), dtype=np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:160:4, 0:160:4], 90), axis=-1).astype(np.uint8)


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(data: bytes, range: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    image = read(data, range)
    assert image.mode == "RGB"
    return np.asarray(image)


def outcome(data: bytes) -> NDArray[np.uint8] | str:
    """The pixels, or the kind of Unusable; anything else passes through and fails the test."""
    try:
        return pixels(data)
    except Unusable as error:
        return error.kind


def kind(data: bytes) -> str:
    with pytest.raises(Unusable) as caught:
        read(data)
    assert str(caught.value)
    return caught.value.kind


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


def test_zero_bytes_are_empty() -> None:
    assert kind(b"") == "empty"


@pytest.mark.parametrize("data", [b"not an image at all", b"\0" * 1000, b"<svg/>", b"%PDF-1.4"])
def test_other_files_are_not_images(data: bytes) -> None:
    assert kind(data) == "not an image"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_a_file_cut_in_its_pixels_is_truncated(form: str, share: float) -> None:
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), form)
    header = data.find(b"\xff\xda") if form == "JPEG" else 900 if form == "GIF" else 60
    assert kind(data[: header + int(share * (len(data) - header))]) == "truncated"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_file_cut_anywhere_is_refused_or_whole(form: str) -> None:
    data = encode(Image.fromarray(SMOOTH), form)
    whole = pixels(data)
    for cut in range(1, len(data), max(1, len(data) // 60)):
        found = outcome(data[:cut])
        if isinstance(found, str):
            assert found in {"truncated", "corrupt", "not an image"}
        else:
            np.testing.assert_array_equal(found, whole)  # cut after the last pixel


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_mutated_bytes_raise_nothing_but_unusable(form: str) -> None:
    data = encode(Image.fromarray(SMOOTH), form)
    rng = np.random.default_rng(1)
    for _ in range(200):
        mutant = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 9)):
            mutant[place] = rng.integers(256)
        found = outcome(bytes(mutant))
        assert found in KINDS if isinstance(found, str) else found.shape[2] == 3


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9460, 20_000, 2**31 - 1])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    assert side * side > MAX_PIXELS
    assert kind(png_header(side, side)) == "bomb"  # decoding would fail as truncated, or for want of memory
    with pytest.raises(Unusable, match=r"pixels\) is over 89,478,485"):
        read(png_header(side, side))


def test_an_image_at_the_limit_is_not_a_bomb() -> None:
    assert kind(png_header(MAX_PIXELS, 1)) != "bomb"


def with_scans(image: Image.Image, more: int) -> bytes:
    """A progressive JPEG whose last scan comes so many times more."""
    data = encode(image, "JPEG", progressive=True)
    last, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:end] + data[last:end] * more + data[end:]


def test_a_jpeg_with_more_scans_than_its_pixels_can_pay_for_is_a_bomb() -> None:
    """30,000 empty scans of 3.9 MB would keep a decoder for many minutes."""
    small = Image.fromarray(SMOOTH)
    assert scans(with_scans(small, 90)) == 100
    assert kind(with_scans(Image.new("RGB", (1000, 1000)), MAX_PASSES // 10**6)) == "bomb"
    assert pixels(with_scans(small, 1000)).shape == SMOOTH.shape
    largest = Image.new("L", (9459, 9459))
    assert scans(encode(largest, "JPEG", progressive=True)) * MAX_PIXELS < MAX_PASSES


def test_a_jpeg_inside_a_tiff_has_ten_scans_at_most() -> None:
    """100, which libtiff allows by itself, keep a decoder for seconds at the most pixels that are taken."""
    grey = Image.fromarray(SMOOTH).convert("L")
    usual = scans(with_scans(grey, 0))
    assert pixels(tiff_of(with_scans(grey, 10 - usual), grey.size)).shape == SMOOTH.shape
    assert kind(tiff_of(with_scans(grey, 11 - usual), grey.size)) == "corrupt"


def tiff_of(jpeg: bytes, size: tuple[int, int]) -> bytes:
    """A TIFF of one strip, which is this grey JPEG (compression 7)."""
    width, height = size
    short, long = 3, 4
    tags = [(256, long, width), (257, long, height), (258, short, 8), (259, short, 7), (262, short, 1),
            (273, long, 8 + 2 + 12 * 9 + 4), (277, short, 1), (278, long, height), (279, long, len(jpeg))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, form, 1, value) for tag, form, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + jpeg


def test_only_the_scans_of_the_first_picture_count() -> None:
    photo, scan = encode(Image.fromarray(SMOOTH), "JPEG"), b"\xff\xda"
    segment = b"\xff\xe1" + struct.pack(">H", 2 + 2000) + scan * 1000  # as a thumbnail has them
    assert scans(photo) == 1
    assert scans(photo[:2] + segment + photo[2:]) == 1
    assert scans(photo + scan * 1000) == 1  # after the end a phone puts a film


def test_a_png_with_a_damaged_byte_is_refused_wherever_the_byte_is() -> None:
    """Pillow checks no checksum of the pixels: every fifth file was read, and was another picture."""
    data = encode(Image.fromarray(RGB), "PNG")
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        if isinstance(found := outcome(bytes(damaged)), np.ndarray):
            np.testing.assert_array_equal(found, RGB)


def test_warnings_of_the_decoder_stay_inside() -> None:
    data = encode(Image.fromarray(RGB), "TIFF")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        kind(png_header(9460, 9460))
        kind(data[:200])
    assert seen == []


def test_unusable_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(Unusable("bomb", "too large")))
    assert (error.kind, str(error)) == ("bomb", "too large")


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
    ("spec", "said"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": 2.5}, "size is 2.5"),
        ({"size": True}, "size is True"),
        ({"size": 8, "filter": "nearest"}, "filter is 'nearest'; allowed: bilinear"),
        ({"size": 8, "resize": "stretch"}, "resize is 'stretch'; allowed: shorter side"),
        ({"size": 8, "crop": "random"}, "crop is 'random'; allowed: centre"),
    ],
)
def test_a_wrong_specification_names_key_value_and_allowed(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
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
