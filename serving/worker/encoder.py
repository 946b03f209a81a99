"""An encoder behind HTTP, whatever the server: requests in, answers out (docs/reference/http.md says what both may be).

It is packed beside the ONNX file with everything that it imports.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime
import orjson

from data.decoding.decode import Preprocess
from data.decoding.image_file import Unusable, work
from serving.worker.metrics import Meter
from serving.worker.payload import (
    JSON,
    NPY,
    TENSOR,
    Embeddings,
    Pixels,
    Refused,
    chosen,
    encoded,
    few,
    fitted,
    mime,
    raw,
    tensor,
)

PIXELS = 100_000  # in one run of the network, 1 to 8 images: more do not fit the cache, and take memory
DECODING = 10.0  # s that a batch may decode; a worker that is silent for 30 s is restarted
# The status for an image that cannot be used; every other kind is a 400.
STATUS = {"bomb": 413, "not an image": 415, "more than 8 bits": 415}
LATE = Refused(503, "The images before this one took too long to decode. Send it again, with fewer in a request.")
X = TypeVar("X")
Y = TypeVar("Y")


@dataclass(frozen=True)
class Request:
    """A request as the server read it: one body, or the parts of a form, and four headers."""

    parts: Sequence[bytes]
    content_type: str = ""
    accept: str = ""
    normalize: str = ""  # x-normalize: TorchServe hands on no query
    probe: str = ""  # x-probe: a question of the watchdog, which drift must not count


@dataclass(frozen=True)
class Answer:
    """The answer that the server sends."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


class Encoder:
    """The one ONNX file of a folder, checked against its metadata, and the decoder that made its training images.

    threads: how many images are decoded, and how many chunks are run, at the same time. Raises ValueError, or errors of
    NumPy and ONNX Runtime, when the folder is not what the pipeline packs.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.session = session(folder)
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.preprocess = Preprocess.from_json(metadata["preprocess"])
        model = orjson.loads(metadata["model"])
        self.version, self.dim = str(model["version"]), int(model["dim"])
        self.shape = (3, self.preprocess.size, self.preprocess.size)
        self.chunk = min(8, max(1, PIXELS // self.preprocess.size**2))
        self.meter: Meter | None = None
        self.threads, self.pool = threads, ThreadPoolExecutor(threads) if threads > 1 else None
        # Two images, so that a batch size fixed at 1 is found here and not by a client.
        trial = self.run(np.zeros((2, *self.shape), np.uint8))
        if trial.shape != (2, self.dim) or not np.isfinite(trial).all():
            raise ValueError(f"two images gave {trial.shape} instead of 2 × {self.dim} finite numbers")

    def embed(self, images: Pixels) -> Embeddings:
        """uint8 (B, 3, S, S) → float32 (B, D)."""
        size = min(self.chunk, -(-len(images) // self.threads))
        found = self.map(self.run, [images[i : i + size] for i in range(0, len(images), size)])
        return np.concatenate(found) if len(found) > 1 else found[0]

    def run(self, images: Pixels) -> Embeddings:
        return np.asarray(self.session.run(["embeddings"], {"images": images})[0])

    def map(self, do: Callable[[X], Y], over: Sequence[X]) -> list[Y]:
        """Map in order, on all threads: Pillow and ONNX Runtime release the lock of the interpreter."""
        return list(self.pool.map(do, over) if self.pool and len(over) > 1 else map(do, over))

    def answer(self, model: str, requests: Sequence[Request]) -> list[Answer]:
        """One answer per request, from one batch of the images of all requests. A bad image does not affect others."""
        begin = time.perf_counter()
        given = [self.images(request) for request in requests]
        images = self.decode_in_time(given)
        usable = [image for of in images for image in of if not isinstance(image, Refused)]
        decoded = time.perf_counter()
        embeddings = self.embed(np.stack(usable)) if usable else np.empty((0, self.dim), np.float32)
        embedded = time.perf_counter()
        rows, answers = iter(embeddings), []
        for request, of in zip(requests, images, strict=True):
            found = [image if isinstance(image, Refused) else next(rows) for image in of]
            answers.append(self.render(model, request, found))
        if self.meter:
            each = (image.status if isinstance(image, Refused) else 200 for of in images for image in of)
            statuses = (answer.status for answer in answers)
            asked = [
                r.probe == "" for r, of in zip(requests, images, strict=True) for i in of if not isinstance(i, Refused)
            ]
            self.meter.count(statuses, each, embeddings, decoded - begin, embedded - decoded)
            self.meter.drift(embeddings[np.array(asked, bool)])
        return answers

    def images(self, request: Request) -> list[Pixels | bytes | Refused]:
        """Each image of a request: (3, S, S), or its file, or why it cannot be used. A bad request is one Refused."""
        try:
            given = mime(request.content_type)
            if given == JSON:
                return list(encoded(request.parts[0]))
            if given in (NPY, TENSOR):
                return list(tensor(request.parts[0], given, self.shape))
            few(len(request.parts))
            return list(request.parts)
        except Refused as refused:
            return [refused]

    def decode_in_time(self, given: Sequence[Sequence[Pixels | bytes | Refused]]) -> list[list[Pixels | Refused]]:
        """Decode the images of all requests, the cheapest request first. After DECODING s, the others are LATE."""
        order = sorted(range(len(given)), key=lambda place: cost(given[place])) if len(given) > 1 else range(len(given))
        images = [image for place in order for image in given[place]]
        end = time.monotonic() + DECODING

        def decode(place: int) -> Pixels | Refused:
            late = place > 0 and isinstance(images[place], bytes) and time.monotonic() > end
            return LATE if late else self.decode(images[place])

        rest = iter(self.map(decode, range(len(images))))
        found = {place: [next(rest) for _ in given[place]] for place in order}
        return [found[place] for place in range(len(given))]

    def decode(self, data: Pixels | bytes | Refused) -> Pixels | Refused:
        """An image file → (3, S, S)."""
        if not isinstance(data, bytes):
            return data
        try:
            return self.preprocess(data)
        except Unusable as error:
            return Refused(STATUS.get(error.kind, 400), f"This image cannot be used: {error}.")

    def render(self, model: str, request: Request, rows: Sequence[Embeddings | Refused]) -> Answer:
        """The answer to a request. With one image, it has the status of that image; with several, each has its own."""
        refused = [(i, row) for i, row in enumerate(rows) if isinstance(row, Refused)]
        if refused and len(rows) == 1:
            return Answer(orjson.dumps({"error": refused[0][1].reason}), refused[0][1].status)
        if request.normalize not in ("", "l2"):
            return Answer(
                orjson.dumps({"error": f"The header x-normalize is {request.normalize[:40]!r}. Allowed: l2."}), 400
            )
        none = np.full(self.dim, np.nan, np.float32)
        vectors = np.stack([none if isinstance(row, Refused) else row for row in rows])
        if request.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        about = {"model": model, "version": self.version, "dim": self.dim}
        errors = [{"index": i} | row.json() for i, row in refused]
        if (wanted := chosen(request.accept)) != JSON:
            headers = {f"x-{key}": str(value) for key, value in about.items()}
            if errors:
                headers["x-errors"] = fitted(errors)
            return Answer(raw(vectors, wanted), content_type=wanted, headers=headers)
        shown = [None if isinstance(row, Refused) else vector for row, vector in zip(rows, vectors, strict=True)]
        answer = about | {"embeddings": shown} | ({"errors": errors} if errors else {})
        return Answer(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))


def cost(images: Sequence[Pixels | bytes | Refused]) -> int:
    """The pixels that decoding a request processes."""
    return sum(work(image) for image in images if isinstance(image, bytes))


def session(folder: Path) -> onnxruntime.InferenceSession:
    """A session of the one ONNX file in a folder. One thread: two runs in parallel are faster than one on two cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    (path,) = folder.glob("*.onnx")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
