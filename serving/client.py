"""Ask a running server for embeddings, from Python or from the command line."""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import requests
from numpy.typing import NDArray
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from serving import ServingError, promoted
from serving.runtime import Runtime

UNKNOWN = (401, 403)  # who asks is not known
OF_NO_USE = (400, 413, 415)  # what is asked about

Image = bytes | str | Path  # encoded bytes, or the path of a file


class ImageError(ServingError):
    """One image is of no use; the others are not concerned."""


class Client:
    """Keeps up to `connections` connections open, so that the server can put several images in one batch.

    `timeout` is in seconds, for one answer: TorchServe lets a request wait for a worker that never comes up.
    `retries`: how often it asks again, after ever longer pauses, when no server is there or its queue is full.
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
        self.session = requests.Session()
        again = Retry(retries, read=False, status_forcelist=(429, 503), allowed_methods=None, backoff_factor=0.1,
                      raise_on_status=False)  # fmt: skip
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=connections, max_retries=again))
        # Octets, or TorchServe would look for a form in the body.
        self.session.headers["Content-Type"] = "application/octet-stream"
        self.token = token
        self.runtime: Runtime | None = None

    @classmethod
    def of(cls, runtime: Runtime) -> Self:
        """A client of the server that runs in this folder, which finds the token there again when it was changed.

        Raises ServingError when no server runs there.
        """
        client = cls(runtime.address("inference"), runtime.token("inference"))
        client.runtime = runtime
        return client

    def embed(self, name: str, image: Image) -> NDArray[np.float32]:
        """The embedding (D,) of one image by the model of that name.

        Raises ImageError when the image is missing or unusable, ServingError when the server is to blame.
        """
        shown = "The image" if isinstance(image, bytes) else str(image)
        try:
            body = image if isinstance(image, bytes) else Path(image).read_bytes()
        except OSError as error:
            raise ImageError(f"{shown} cannot be read: {error.strerror}.") from error
        try:
            url = f"{self.address}/predictions/{name}"
            response = self._post(url, body)
            if response.status_code in UNKNOWN and self._new_token():
                response = self._post(url, body)
        except requests.Timeout as error:
            raise ServingError(f"{self.address} gave no answer for {name} in {self.timeout:g} s.") from error
        except requests.RequestException as error:
            raise ServingError(f"No server answers at {self.address}; run `make serve`.") from error
        return _embedding(response, name, shown)

    def _post(self, url: str, body: bytes) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token is not None else None
        return self.session.post(url, data=body, headers=headers, timeout=(5, self.timeout))

    def _new_token(self) -> bool:
        """Whether the server's folder holds another token than ours; it does from a moment after the change on."""
        if self.runtime is None:
            return False
        refused, end = self.token, time.monotonic() + 1
        while self.token == refused and time.monotonic() < end:
            self.token = self.runtime.token("inference")
            time.sleep(0.02)
        return self.token != refused

    def embed_many(self, name: str, images: Iterable[Image]) -> Iterator[NDArray[np.float32] | ImageError]:
        """What `embed` gives for every image, in order, with an unusable image's error in its place."""

        def one(image: Image) -> NDArray[np.float32] | ImageError:
            try:
                return self.embed(name, image)
            except ImageError as error:
                return error

        pool = ThreadPoolExecutor(self.connections)
        try:
            yield from pool.map(one, images)
        finally:
            pool.shutdown(cancel_futures=True)


def _embedding(response: requests.Response, name: str, shown: str) -> NDArray[np.float32]:
    try:
        answer = response.json()
    except ValueError:
        answer = {}
    if response.ok and "embeddings" in answer:
        return np.asarray(answer["embeddings"][0], np.float32)
    if "error" in answer and response.status_code in OF_NO_USE:  # TorchServe's own errors have a "message"
        raise ImageError(f"{shown}: {answer['error']}")
    if response.status_code == requests.codes.request_entity_too_large:
        raise ImageError(f"{shown}: the file is larger than the server accepts (max_request_size).")
    reason = answer.get("message") or answer.get("error") or response.reason
    raise ServingError(f"The server refuses {name} with status {response.status_code}: {reason}")


def main() -> None:
    """One JSON line an image; status 1 when an image, 2 when the server was of no use."""
    parser = argparse.ArgumentParser(prog="python -m serving.client", description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="files to embed")
    parser.add_argument("--model", metavar="NAME", help="a name on the server; the champion's without it")
    parser.add_argument("--token", action="store_true", help="print the inference token, for curl, and end")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="folder of the running server")
    given = parser.parse_args()
    if not given.images and not given.token:
        parser.error("name an IMAGE, or ask for the --token")
    runtime = Runtime(given.run) if given.run else Runtime()
    failed = False
    try:
        if given.token:
            print(runtime.token("inference"))
            return
        name = given.model or promoted.read(Path("artifacts/promoted.json")).encoder
        answers = Client.of(runtime).embed_many(name, given.images)
        for image, answer in zip(given.images, answers, strict=True):
            if isinstance(answer, ImageError):
                failed = True
                print(answer, file=sys.stderr)
            else:
                print(json.dumps({"image": image, "embedding": answer.tolist()}), flush=True)
    except ServingError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
