"""What is asked: images in every form of the contract, what must be refused, and which answer is right."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.worker.payload import BYTES, JSON, NPY, TENSOR

FORMS = ("file", "form", JSON, TENSOR, NPY)
TOLERANCE = 1e-4  # of a vector's largest entry


@dataclass
class Truth:
    """Images as files and as the encoder takes them, uint8 (N, 3, S, S); by version their embeddings, (N, D)."""

    files: list[bytes]
    tensors: NDArray[np.uint8]
    embeddings: Mapping[str, NDArray[np.float32]]

    def fault(self, rows: list[int], version: str, given: NDArray[np.float32]) -> str:
        """What is wrong with the answer for these images; nothing when it is right."""
        wanted = self.embeddings[version][rows]
        if given.shape != wanted.shape:
            return f"{given.shape} instead of {wanted.shape} by version {version}"
        difference = float(np.abs(given - wanted).max() / np.abs(wanted).max())
        return "" if difference <= TOLERANCE else f"version {version} differs by {difference:.1e} of the largest entry"


def written(truth: Truth, rows: list[int], form: str) -> tuple[dict[str, Any], str | None]:
    """The body of a good request of one of the FORMS, as `requests` takes it, and its Content-Type."""
    files = [truth.files[row] for row in rows]
    if form == "form":
        return {"files": {str(i): ("image", file) for i, file in enumerate(files)}}, None
    if form == JSON:
        return {"data": json.dumps({"images": [base64.b64encode(file).decode() for file in files]})}, JSON
    if form == "file":
        return {"data": files[0]}, BYTES
    if form == TENSOR:
        return {"data": truth.tensors[rows].tobytes()}, TENSOR
    return {"data": saved(truth.tensors[rows])}, NPY


def saved(array: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


class Refusal(NamedTuple):
    """A request and the status that is due."""

    status: int
    path: str  # added to the address
    content_type: str
    body: bytes


def bad(truth: Truth) -> list[Refusal]:
    """Requests that cannot be used."""
    file = truth.files[0]
    return [
        Refusal(400, "", BYTES, b""),
        Refusal(400, "", BYTES, file[: len(file) // 2]),
        Refusal(415, "", BYTES, b"words"),
        Refusal(400, "", JSON, b'{"images": ['),
        Refusal(400, "", JSON, b'{"images": ["?"]}'),
        Refusal(400, "", TENSOR, b"\0" * 7),
        Refusal(400, "", NPY, saved(truth.tensors[:1])[:-1]),
        Refusal(404, "/99", BYTES, file),
    ]


def huge() -> list[Refusal]:
    """Too many bytes, too many pixels."""
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    return [Refusal(413, "", BYTES, bytes(21 << 20)), Refusal(413, "", BYTES, bomb.getvalue())]
