"""Read and write the bodies of requests: base64 in JSON, tensors, vectors; say why one cannot be used.

Packed beside `encoder.py`.
"""

import base64
import binascii
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Embeddings = NDArray[np.float32]

MAX_IMAGES = 64  # per request
HEADER = 2048  # bytes of x-errors: a proxy has 4 KiB for all headers of an answer, nginx by default
JSON, BYTES, NPY, TENSOR = "application/json", "application/octet-stream", "application/x-npy", "application/x-uint8"


class Refused(Exception):
    """A request or one image of it cannot be used: the HTTP status, and a sentence."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason

    def json(self) -> dict[str, object]:
        return {"status": self.status, "error": self.reason}


def mime(value: str) -> str:
    """`application/json; charset=utf-8` → `application/json`."""
    return value.split(";", maxsplit=1)[0].strip().lower()


def chosen(accept: str) -> str:
    """The type that an Accept header prefers among those that we have; JSON when there is none."""

    def weight(part: str) -> float:
        found = [value for key, _, value in (p.partition("=") for p in part.split(";")[1:]) if key.strip() == "q"]
        try:
            return float(found[0]) if found else 1.0
        except ValueError:
            return 0.0

    parts = sorted((part for part in accept.split(",") if weight(part) > 0), key=weight, reverse=True)
    return next((mime(part) for part in parts if mime(part) in (JSON, BYTES, NPY)), JSON)


def fitted(errors: Sequence[dict[str, object]]) -> str:
    """Errors as ASCII JSON for a header. When they are too long, sentences are left out, the last ones first."""
    for kept in range(len(errors), -1, -1):
        short = [e if row < kept else {k: v for k, v in e.items() if k != "error"} for row, e in enumerate(errors)]
        if len(text := json.dumps(short, separators=(",", ":"))) <= HEADER:
            break
    return text


def few(n: int) -> None:
    """Raises Refused when a request has too many images, or none."""
    if not 1 <= n <= MAX_IMAGES:
        raise Refused(413 if n else 400, f"The request has {n} images. Allowed: 1 to {MAX_IMAGES}.")


def encoded(body: bytes) -> list[bytes | Refused]:
    """`{"images": ["<base64>", …]}` → image files."""
    try:
        texts = orjson.loads(body)["images"]
        if not isinstance(texts, list):
            raise TypeError("images is not a list")
    except (ValueError, KeyError, TypeError) as error:
        reason = f'lacks "{error.args[0]}"' if isinstance(error, KeyError) else str(error)
        raise Refused(400, f'The JSON is not {{"images": ["<base64>", …]}}: {reason}.') from None
    few(len(texts))
    return [unpacked(text) for text in texts]


def unpacked(text: object) -> bytes | Refused:
    """One base64 text."""
    try:
        if not isinstance(text, str):
            raise ValueError(f"{type(text).__name__} instead of a text")
        return base64.b64decode(text.encode(), validate=True)
    except (ValueError, binascii.Error) as error:
        return Refused(400, f"This image is not base64: {error}.")


def tensor(body: bytes, content_type: str, shape: tuple[int, int, int]) -> Pixels:
    """uint8 images (N, 3, S, S), C order, bare or as .npy. Memory is allocated only for bytes that were sent."""
    wanted = f"uint8 (N, {', '.join(map(str, shape))})"
    each = int(np.prod(shape))
    try:
        data: Any = body
        if content_type == NPY:
            file = io.BytesIO(body)
            given, fortran, dtype = header(file)
            data = memoryview(body)[file.tell() :]
            if dtype != np.uint8 or fortran or given[1:] != shape or given[0] * each != len(data):
                raise ValueError(f"it is {dtype} {given}{', in Fortran order' if fortran else ''}, {len(data)} bytes")
        if len(data) % each or not len(data):
            raise ValueError(f"{len(data)} bytes are not whole images of {each}")
        few(len(data) // each)
        return np.frombuffer(data, np.uint8).reshape(-1, *shape)
    except ValueError as error:
        raise Refused(400, f"The tensor is not {wanted}: {' '.join(str(error).split())[:200]}.") from None


def header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Of a .npy file: shape, Fortran order, type. Raises ValueError."""
    try:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        return readers[version](file)
    except Exception as error:  # NumPy parses it as Python: any error of the parser, and KeyError for version 3
        raise ValueError(f"its header cannot be read ({type(error).__name__})") from None


def raw(vectors: Embeddings, content_type: str) -> bytes:
    """float32 (N, D), little endian, bare or as .npy."""
    if content_type == BYTES:
        return vectors.astype("<f4", copy=False).tobytes()
    file = io.BytesIO()
    np.save(file, vectors, allow_pickle=False)
    return file.getvalue()
