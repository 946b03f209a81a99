"""Files that are cut, damaged, too large or no images are refused by their kind of fault."""

import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data.decoding.decode import read
from data.decoding.image_file import MAX_PASSES, MAX_PIXELS, Unusable, scans
from tests.data.decoding.images import RGB, RNG, SMOOTH, encode, kind, pixels

KINDS = {"not an image", "corrupt", "truncated", "bomb", "unreadable"}


def outcome(data: bytes) -> NDArray[np.uint8] | str:
    """The pixels, or the kind of Unusable; anything else passes through and fails the test."""
    try:
        return pixels(data)
    except Unusable as error:
        return error.kind


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
