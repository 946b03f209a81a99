"""Images of more than 8 bits whose shades are known, and their files byte by byte: Pillow writes few of their kinds."""

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 16
COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}  # channels → PNG's colour type


def png(values: NDArray[Any]) -> bytes:
    """A PNG of 16 bits of (H, W) or (H, W, channels)."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    size = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPE[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(
    values: NDArray[Any],
    deflated: bool = False,
    planes: bool = False,
    alpha: int | None = None,
    white_is_zero: bool = False,
) -> bytes:
    """A TIFF in the byte order of the values, of (H, W) or (H, W, channels); alpha: what the fourth channel is."""
    order = ">" if values.dtype.str[0] == ">" else "<"
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    parts = [values[..., c].tobytes() for c in range(channels)] if planes else [values.tobytes()]
    parts = [zlib.compress(part) for part in parts] if deflated else parts
    starts = [8 + sum(map(len, parts[:i])) for i in range(len(parts))]
    short, long = "H", "I"
    tags = {
        256: (long, [width]),
        257: (long, [height]),
        258: (short, [8 * values.itemsize] * channels),
        259: (short, [8 if deflated else 1]),
        262: (short, [2 if channels > 2 else int(not white_is_zero)]),
        273: (long, starts),
        277: (short, [channels]),
        278: (long, [height]),
        279: (long, [len(part) for part in parts]),
        284: (short, [2 if planes else 1]),
        339: (short, [{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * channels),
    }
    if alpha is not None:
        tags[338] = (short, [alpha])
    start = 8 + sum(map(len, parts))
    entries, more = b"", b""
    for tag, (form, numbers) in sorted(tags.items()):
        body = struct.pack(f"{order}{len(numbers)}{form}", *numbers)
        if len(body) > 4:
            place = start + 2 + 12 * len(tags) + 4 + len(more)
            more, body = more + body, struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, 3 if form == short else 4, len(numbers)) + body.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return head + b"".join(parts) + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + more


def shades(n: int = 12, channels: int | None = None) -> list[NDArray[np.float64]]:
    """Images from 0 to 1, each with all 256 shades in an order of its own."""
    rng = np.random.default_rng(0)
    shape = (SIDE, SIDE) if channels is None else (SIDE, SIDE, channels)
    steps = np.linspace(0, 1, SIDE * SIDE)
    return [np.stack([rng.permutation(steps) for _ in range(channels or 1)], axis=-1).reshape(shape) for _ in range(n)]


def spread(low: float, high: float, dtype: str, **kind: Any) -> list[NDArray[Any]]:
    whole = np.dtype(dtype).kind != "f"
    values = [low + (high - low) * image for image in shades(**kind)]
    return [(np.rint(image) if whole else image).astype(dtype) for image in values]
