"""Bytes of an image file → a Pillow image, or the reason why it cannot be used.

An image that takes too long to decode is refused by its header. Packed beside the TorchServe handler: standard library
and Pillow only. Pillow is imported where an image is opened, so that training can read a specification without it.
"""

import io
import logging
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 89_478_485  # Pillow's own warning limit: 256 MiB of RGB
MAX_PASSES = 10 * MAX_PIXELS  # pixels × scans of a JPEG: each scan passes over all pixels, however few bytes it has
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
SIGNATURES = (JPEG, PNG, b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # of a JPEG; a stuffed byte and a restart are none
START_OF_SCAN, END_OF_IMAGE, WITHOUT_LENGTH = 0xDA, 0xD9, range(0x01, 0xC0)
NATIVE_ORDER = {"F;32BF": "F;32NF", "F;64BF": "F;64NF", "I;32BS": "I;32NS", "I;16BS": "I;16NS"}

# A JPEG inside a TIFF: at most 10 scans of each strip, so that none passes over more than MAX_PASSES. libtiff reads it.
os.environ.setdefault("LIBTIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER", "11")
# Without a handler, Pillow would print warnings about odd files to standard error.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class Unusable(Exception):
    """An image that cannot be used; the message is the reason.

    kind: "empty", "not an image", "corrupt", "truncated", "bomb", "more than 8 bits" or "unreadable".
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)  # both, so that it survives pickling between processes
        self.kind, self.reason = kind, reason

    def __str__(self) -> str:
        return self.reason


@contextmanager
def refusing(data: bytes) -> Iterator[None]:
    """Turn every error of reading these bytes into Unusable; suppress warnings."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    if not data:
        raise Unusable("empty", "the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Unusable:
            raise
        except UnidentifiedImageError:
            if data.startswith(SIGNATURES):
                raise Unusable("corrupt", "the header cannot be read") from None
            raise Unusable("not an image", f"not one of {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError as error:  # the same check by Pillow, at twice the limit
            raise Unusable("bomb", f"{str(error).split(' exceeds')[0]} is over {MAX_PIXELS:,}") from None
        except MemoryError:
            raise Unusable("unreadable", "not enough memory to decode it") from None
        except Exception as error:  # decoders raise nearly anything on bytes they did not expect
            cut = isinstance(error, EOFError) or "truncated" in str(error).lower() or _riff_is_short(data)
            kind = "truncated" if cut else "corrupt"
            raise Unusable(kind, " ".join(str(error).split()) or type(error).__name__) from None


def opened(file: BinaryIO) -> "Image.Image":
    """The image, its pixels not yet read."""
    from PIL import Image  # noqa: PLC0415

    image: Any = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise Unusable("bomb", f"Image size ({image.width} × {image.height} pixels) is over {MAX_PIXELS:,}")
    if image.tile and image.tile[0].codec_name == "libtiff" and image.tile[0].args[0] in NATIVE_ORDER:
        unpack(image, NATIVE_ORDER[image.tile[0].args[0]])  # libtiff turns the bytes, and Pillow 13 turns them back
    return image  # type: ignore[no-any-return]


def checked(data: bytes) -> "Image.Image":
    """The image of these bytes, its pixels not yet read, after checks that Pillow does not make."""
    image = opened(io.BytesIO(data))
    pixels = image.width * image.height
    if (
        data.startswith(JPEG)
        and most_scans(data) * pixels > MAX_PASSES
        and (count := scans(data)) * pixels > MAX_PASSES
    ):
        raise Unusable("bomb", f"{count:,} scans of {image.width} × {image.height} pixels are over {MAX_PASSES:,}")
    if data.startswith(PNG):
        _check_pixels(data)
    return image


def work(data: bytes) -> int:
    """The most pixels that decoding processes, a JPEG's once per scan; 0 when the header cannot be read."""
    try:
        with refusing(data):
            image = opened(io.BytesIO(data))
            return image.width * image.height * (most_scans(data) if data.startswith(JPEG) else 1)
    except Unusable:
        return 0


def unpack(image: Any, raw_mode: str) -> None:
    """Have Pillow read the pixels by another of its raw modes."""
    for row, tile in enumerate(image.tile):
        rest = () if isinstance(tile.args, str) else tile.args[1:]
        image.tile[row] = tile._replace(args=(raw_mode, *rest))


def most_scans(data: bytes) -> int:
    """An upper limit of a JPEG's scans, found fast: it counts those of thumbnails and after the end too."""
    return data.count(b"\xff\xda")


def scans(data: bytes) -> int:
    """Scans of a JPEG up to its end; those of a thumbnail within a segment do not count."""
    count, place = 0, 2
    while found := MARKER.search(data, place):
        marker, place = found[1][0], found.end()
        if marker == END_OF_IMAGE:
            break
        count += marker == START_OF_SCAN
        if marker not in WITHOUT_LENGTH:
            place += int.from_bytes(data[place : place + 2])
    return count


def _check_pixels(data: bytes) -> None:
    """Raises Unusable when a PNG's compressed pixels are damaged: Pillow checks only the other chunks."""
    place = len(PNG)
    while (end := place + 8 + int.from_bytes(data[place : place + 4])) + 4 <= len(data):
        wrong = zlib.crc32(memoryview(data)[place + 4 : end]) != int.from_bytes(data[end : end + 4])
        if wrong and data[place + 4 : place + 8] == b"IDAT":
            raise Unusable("corrupt", "its pixels are damaged: a checksum is wrong")
        place = end + 4


def _riff_is_short(data: bytes) -> bool:
    # The WebP decoder does not say why it failed, but its container states its own length.
    return data.startswith(b"RIFF") and int.from_bytes(data[4:8], "little") + 8 > len(data)
