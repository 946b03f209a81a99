"""Read images of more than 8 bits: all grey levels, or a range of them as 8 bits.

Packed beside the TorchServe handler: standard library, numpy and Pillow only.
"""

import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.decoding.image_file import Unusable, checked, unpack

if TYPE_CHECKING:
    from PIL import Image

STRIP = 1 << 20  # pixels that are in float64 at a time
BITS_TAG, PHOTOMETRIC_TAG, PLANES_TAG, SIGN_TAG = 0x0102, 0x0106, 0x011C, 0x0153
SAMPLES = {"I": "signed or 32-bit integers", "F": "floats"}  # by Pillow's mode; otherwise 16-bit integers
GREY = (("I",), ("F",))  # Pillow's bands
COLOURS = re.compile(r"\b(RGBX?|RGBA|LA);16([BLN])\b")  # 16-bit colours, by Pillow's raw mode
OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def samples(image: Any) -> str | None:
    """What the values of an opened image of more than 8 bits are; None for 8 bits and for CMYK."""
    if image.format == "TIFF":
        deep = max(image.tag_v2.get(BITS_TAG, (1,))) > 8
    else:
        deep = image.format == "PNG" and ";16" in str(image.tile)
    return SAMPLES.get(image.mode, "16-bit integers") if deep and image.mode != "CMYK" else None


def strips(image: Any, data: bytes, height: int) -> Iterator[NDArray[Any]]:
    """All bits of a loaded image of more than 8 bits, `height` rows at a time: (h, W) of grey, (h, W, 3) of colours.

    data: the file. Raises Unusable where Pillow cannot give all bits.
    """
    tags = image.tag_v2 if image.format == "TIFF" else {}
    grey = image.getbands() in GREY
    low, bands = (None, slice(0)) if grey else _low_bytes(data)
    unsigned = image.mode == "I" and tags.get(SIGN_TAG, (1,))[0] == 1
    white_is_zero = grey and tags.get(PHOTOMETRIC_TAG) == 0
    if white_is_zero and image.mode == "F":
        raise Unusable("unreadable", "its floats say that zero is white; convert it so that zero is black")
    for top in range(0, image.height, height):
        box = (0, top, image.width, min(top + height, image.height))
        high: NDArray[Any] = np.asarray(image.crop(box))
        if low:
            yield high[..., :3].astype(np.uint16) << 8 | np.asarray(low.crop(box))[..., bands]
        else:
            values = high.view(np.uint32) if unsigned else high
            yield ~values if white_is_zero else values


def narrowed(image: "Image.Image", data: bytes, range_: tuple[float, float]) -> "Image.Image":
    """A loaded image of more than 8 bits in 8 bits; -inf and what is no number are black, inf is white."""
    from PIL import Image  # noqa: PLC0415

    def scaled(values: NDArray[Any]) -> NDArray[np.uint8]:
        shares = np.subtract(values, range_[0], dtype=np.float64)
        shares *= 255 / (range_[1] - range_[0])
        np.nan_to_num(shares, copy=False, nan=0, posinf=255, neginf=0)
        bytes_: NDArray[np.uint8] = np.rint(shares.clip(0, 255)).astype(np.uint8)
        return bytes_

    table = scaled(np.arange(1 << 16))  # of 16-bit integers: ten times as fast
    height = max(1, STRIP // image.width)
    narrow = Image.new("L" if image.getbands() in GREY else "RGB", image.size)
    for row, values in enumerate(strips(image, data, height)):
        strip = table[values] if values.dtype.kind == "u" and values.itemsize == 2 else scaled(values)
        narrow.paste(Image.fromarray(strip), (0, row * height))
    if "A" in image.getbands():
        narrow.putalpha(image.getchannel("A"))
    return narrow


def _low_bytes(data: bytes) -> tuple[Any, slice]:
    """The image with each colour's low byte in place of its high one, and the bands that hold them."""
    again: Any = checked(data)
    raw = COLOURS.search(str(again.tile[0].args))
    if raw is None or (again.format == "TIFF" and again.tag_v2.get(PLANES_TAG) == 2):
        raise Unusable("unreadable", "its 16-bit colours are stored in a rare way; convert it to 8 bits")
    # Pillow keeps the high byte of each colour; in the other byte order that is the low one. Grey with alpha has no
    # other order: its four bytes are read as if they were four colours.
    unpack(again, "RGBA" if raw[1] == "LA" else f"{raw[1]};16{OTHER_ORDER[raw[2]]}")
    again.load()
    return again, slice(1, 2) if raw[1] == "LA" else slice(3)
