"""Ask a running server for embeddings, from Python or from the command line."""

import io
import json
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
import requests
from numpy.typing import NDArray
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from serving import ServingError
from serving.host import loopback, promoted
from serving.host.command import Parser, command
from serving.host.files import Unreadable, escaped, read
from serving.host.runtime import Runtime
from serving.worker.payload import BYTES, MAX_IMAGES, NPY

UNKNOWN = (401, 403)  # the token is not known
UNUSABLE = (400, 413, 415)  # the image cannot be used

MAX_BYTES = 16 << 20  # a request of several images; the server takes 20 MiB
AHEAD = 2  # waiting requests per connection

Image = bytes | str | Path  # encoded bytes, or the path of a file
Vector = NDArray[np.float32]


class ImageError(ServingError):
    """One image cannot be used. The other images are not affected."""


class Client:
    """Keeps up to `connections` connections open, so that the server can put several images in one batch.

    `timeout`: seconds to wait for one answer; TorchServe lets a request wait for a worker that never starts.
    `retries`: how often it asks again, after longer and longer pauses, when no server is there, when its queue is full
    or when the worker died that had the request.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8080",
        token: str | None = None,
        timeout: float = 60,
        connections: int = 16,
        retries: int = 3,
    ) -> None:
        self.address = address.rstrip("/")
        self.timeout = timeout
        self.connections = connections
        self.session = loopback.session(self.address)
        again = Retry(retries, read=False, status_forcelist=(429, 503, 507), allowed_methods=None, backoff_factor=0.1,
                      raise_on_status=False)  # fmt: skip
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=connections, max_retries=again))
        self.session.headers["Accept"] = NPY
        self.token = token
        self.runtime: Runtime | None = None

    @classmethod
    def of(cls, runtime: Runtime) -> Self:
        """A client of the server that runs in this folder. It reads the token again when that was changed.

        Raises ServingError when no server runs there.
        """
        client = cls(runtime.address("inference"), runtime.token("inference"))
        client.runtime = runtime
        return client

    def embed(self, name: str, image: Image) -> Vector:
        """The embedding (D,) of one image by the model of that name.

        Raises ImageError when the image is missing or cannot be used, ServingError when the server fails.
        """
        (answer,) = self._ask(name, [image])
        if isinstance(answer, ImageError):
            raise answer
        return answer

    def embed_many(
        self, name: str, images: Iterable[Image], batch: int = 1, progress: bool = False
    ) -> Iterator[Vector | ImageError]:
        """What `embed` gives for every image, in order, with an unusable image's error in its place.

        `batch`: images per request, at most 64; several small images per request are faster. `progress`: show a bar on
        a terminal.
        """
        total = len(images) if isinstance(images, Sized) else None
        pool, flying = ThreadPoolExecutor(self.connections), deque[Future[list[Vector | ImageError]]]()
        try:
            with tqdm(total=total, desc=name, unit=" images", disable=None if progress else True) as bar:
                for group in chain(grouped(images, min(batch, MAX_IMAGES)), [None]):
                    if group:
                        flying.append(pool.submit(self._ask, name, group))
                    while flying and (not group or len(flying) > AHEAD * self.connections):
                        answers = flying.popleft().result()
                        yield from answers
                        bar.update(len(answers))
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, name: str, images: Sequence[Image]) -> list[Vector | ImageError]:
        """The answers to one request."""
        bodies = [_read(image) for image in images]
        sent = [body for body in bodies if isinstance(body, bytes)]
        if not sent:
            return [body for body in bodies if isinstance(body, ImageError)]
        found = iter(self._embedded(name, sent))
        answers: list[Vector | ImageError] = []
        for image, body in zip(images, bodies, strict=True):
            answer = body if isinstance(body, ImageError) else next(found)
            answers.append(ImageError(f"{_shown(image)}: {answer}") if isinstance(answer, str) else answer)
        return answers

    def _embedded(self, name: str, bodies: Sequence[bytes]) -> list[Vector | str]:
        """The embeddings of one request, or why an image of it cannot be used.

        An image is sent again, alone, if it was not decoded in time or its error did not fit into the answer's header.
        """
        url = f"{self.address}/predictions/{name}"
        try:
            token = self.token
            response = self._post(url, bodies, token)
            while response.status_code in UNKNOWN and (newer := self.newer(token)):
                token = newer
                response = self._post(url, bodies, token)
        except requests.Timeout as error:
            raise ServingError(
                f"The server at {self.address} gave no answer for {name} in {self.timeout:g} s. Try again later."
            ) from error
        except requests.RequestException as error:
            raise ServingError(f"No server answers at {self.address}. Start one with `make serve`.") from error
        found = enumerate(_embeddings(response, name, len(bodies)))
        return [self._embedded(name, bodies[i : i + 1])[0] if row is None else row for i, row in found]

    def _post(self, url: str, bodies: Sequence[bytes], token: str | None) -> requests.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if len(bodies) == 1:
            # Without this type, TorchServe would look for a form in the body.
            headers["Content-Type"] = BYTES
            return self.session.post(url, data=bodies[0], headers=headers, timeout=(5, self.timeout))
        parts = {str(i): (str(i), body, BYTES) for i, body in enumerate(bodies)}
        return self.session.post(url, files=parts, headers=headers, timeout=(5, self.timeout))

    def newer(self, refused: str | None) -> str | None:
        """A newer token than the refused one, if the server's folder has one within a second.

        Another thread may have found it already.
        """
        if self.runtime is None:
            return None
        end = time.monotonic() + 1
        while self.token == refused and time.monotonic() < end:
            self.token = self.runtime.token("inference")
            time.sleep(0.02)
        return self.token if self.token != refused else None


def grouped(images: Iterable[Image], batch: int) -> Iterator[list[Image]]:
    """Groups of `batch` images, or fewer where more would be too large for one request."""
    group: list[Image] = []
    size = 0
    for image in images:
        more = len(image) if isinstance(image, bytes) else _size(Path(image))
        if group and (len(group) == batch or size + more > MAX_BYTES):
            yield group
            group, size = [], 0
        group.append(image)
        size += more
    if group:
        yield group


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _shown(image: Image) -> str:
    return "The image" if isinstance(image, bytes) else escaped(image)


def _read(image: Image) -> bytes | ImageError:
    try:
        return image if isinstance(image, bytes) else read(image)
    except Unreadable as reason:
        return ImageError(f"{_shown(image)} cannot be read: {reason}.")


def _embeddings(response: requests.Response, name: str, n: int) -> list[Vector | str | None]:
    """The embeddings of n images, or why there is none; None: ask for that image alone. Raises ServingError."""
    if response.ok and response.headers.get("Content-Type") == NPY:
        found: list[Vector | str | None] = list(np.load(io.BytesIO(response.content), allow_pickle=False))
        for error in json.loads(response.headers.get("x-errors", "[]")):
            late = error["status"] == requests.codes.service_unavailable
            found[error["index"]] = None if late else error.get("error")
        return found
    try:
        answer = response.json()
    except ValueError:
        answer = {}
    if n == 1 and "error" in answer and response.status_code in UNUSABLE:  # TorchServe's own have a "message"
        return [str(answer["error"])]
    if n == 1 and response.status_code == requests.codes.request_entity_too_large:
        return ["the file is larger than the server accepts (max_request_size)."]
    reason = answer.get("message") or answer.get("error") or response.reason
    raise ServingError(f"The server refuses {name} with status {response.status_code}: {str(reason).rstrip('.')}.")


def main() -> None:
    """Print one JSON line per image. Exit status 1: an image cannot be used. 2: the server failed."""
    parser = Parser(prog="python -m serving.client", description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="files to embed")
    parser.add_argument("--model", metavar="NAME", help="a name on the server (default: the champion)")
    parser.add_argument("--token", action="store_true", help="print the inference token, for curl, and exit")
    parser.add_argument(
        "--run", type=Path, metavar="FOLDER", help="the folder of the running server (default: serving/run)"
    )
    given = parser.parse_args()
    if not given.images and not given.token:
        parser.error("There is no IMAGE. Name one, or ask for the --token.")
    runtime = Runtime(given.run) if given.run else Runtime()
    failed = False
    with command(status=2):
        if given.token:
            print(runtime.token("inference"))
            return
        name = given.model or promoted.read(Path("artifacts/promoted.json")).encoder
        answers = Client.of(runtime).embed_many(name, given.images, progress=not sys.stdout.isatty())
        for image, answer in zip(given.images, answers, strict=True):
            if isinstance(answer, ImageError):
                failed = True
                print(answer, file=sys.stderr)
            else:
                print(json.dumps({"image": escaped(image), "embedding": answer.tolist()}), flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
