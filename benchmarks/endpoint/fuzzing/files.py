"""Image files and their mutations: bits flipped, files cut and spliced, wrong sizes."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from PIL import Image

WIDTH, HEIGHT = 37, 29  # so odd that they are found in a header
LIES = (0, 1, 2, 255, 4096, 9459, 9460, 32767, 65535, 89478485, 2**31 - 1, 2**32 - 1)
PNG_START = b"\x89PNG\r\n\x1a\n"


def valid() -> list[bytes]:
    """A file of each kind that the endpoint opens."""
    mode = {"L": Image.linear_gradient("L").resize((WIDTH, HEIGHT))}
    mode["RGB"] = Image.merge("RGB", [mode["L"], mode["L"].rotate(90), mode["L"].rotate(180)])
    mode |= {other: mode["RGB"].convert(other) for other in ("P", "1", "RGBA", "CMYK", "YCbCr")}
    mode |= {"LA": mode["L"].convert("LA"), "F": mode["L"].convert("F"), "I;16": mode["L"].convert("I;16")}
    exif = Image.Exif()
    exif[0x0112] = 6
    frames: dict[str, Any] = {"save_all": True, "append_images": [mode["RGB"].rotate(45)]}
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("RGB", "PNG", {}), ("P", "PNG", {"transparency": 3}), ("LA", "PNG", {}), ("I;16", "PNG", {}), ("1", "PNG", {}),
        ("RGB", "JPEG", {"exif": exif}), ("CMYK", "JPEG", {"progressive": True}), ("L", "JPEG", {}),
        ("RGB", "WEBP", {}), ("RGBA", "WEBP", {"lossless": True}), ("RGB", "WEBP", frames),
        ("P", "GIF", {"transparency": 1}), ("RGB", "GIF", frames),
        ("RGB", "BMP", {}), ("P", "BMP", {}), ("1", "BMP", {}),
        ("RGB", "TIFF", {}), ("CMYK", "TIFF", {"compression": "tiff_lzw"}), ("F", "TIFF", {}), ("I;16", "TIFF", {}),
        ("RGB", "TIFF", {"compression": "jpeg"}), ("1", "TIFF", {"compression": "group4"}),
        ("YCbCr", "TIFF", {"compression": "tiff_adobe_deflate"}),
    ]  # fmt: skip
    return [saved(mode[name], kind, more) for name, kind, more in kinds]


def saved(image: Image.Image, kind: str, more: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


FILES = valid()
FILE = st.sampled_from(range(len(FILES))).map(FILES.__getitem__)
EDITS = st.lists(
    st.tuples(st.sampled_from(["flip", "write", "insert", "cut", "repeat", "end", "splice"]),
              st.integers(0, 2000), st.integers(1, 64), st.binary(min_size=1, max_size=8), FILE),
    min_size=1, max_size=4,
)  # fmt: skip


def edited(data: bytes, edits: Sequence[tuple[str, int, int, bytes, bytes]]) -> bytes:
    """`data` after each edit: what is done, where, to how many bytes, with which bytes, and the other file."""
    for what, position, length, new, other in edits:
        at = position % (len(data) + 1)
        before, after = data[:at], data[at:]
        match what:
            case "flip":
                data = before + bytes(byte ^ 1 << length % 8 for byte in after[:1]) + after[1:]
            case "write":
                data = before + new + after[len(new) :]
            case "insert":
                data = before + new + after
            case "cut":
                data = before + after[length:]
            case "repeat":
                data = before + after[:length] * length + after
            case "end":
                data = before
            case "splice":
                data = before + other[position % (len(other) + 1) :]
    return data


def lying(data: bytes, side: int, value: int, form: str, place: int) -> bytes:
    """`data` with one of the numbers that say how large it is exchanged for another."""
    number = struct.pack(form, side)
    places = [i for i in range(len(data)) if data.startswith(number, i)]
    if not places:
        return data
    at = places[place % len(places)]
    return data[:at] + struct.pack(form, value % 256 ** len(number)) + data[at + len(number) :]


def summed(data: bytes) -> bytes:
    """A PNG whose checksums fit, so that a mutation goes past the first of them."""
    out, at = PNG_START, len(PNG_START)
    while data.startswith(PNG_START) and at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        out += data[at:end] + zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return out if data.startswith(PNG_START) else data


MUTATED = st.builds(edited, FILE, EDITS)
LYING = st.builds(
    lying, FILE, st.sampled_from([WIDTH, HEIGHT]), st.sampled_from(LIES), st.sampled_from(["<H", ">H", "<I", ">I"]),
    st.integers(0, 3),
)  # fmt: skip
IMAGES = MUTATED | MUTATED.map(summed) | LYING | LYING.map(summed)
