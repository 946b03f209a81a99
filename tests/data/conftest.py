"""Folders of small images, and a server of files."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.decoding.decode import Preprocess
from data.prepare import prepare
from data.shards import Prepared
from tests.data.mirror import Server


def write_image(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> None:
    """A PNG of noise; the same seed and size give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """40 images of 8 × 8 in two classes: train 32, val 4, test 4."""
    root = tmp_path_factory.mktemp("prepared")
    for number in range(40):
        write_image(root / "raw" / ("cat" if number % 2 else "dog") / f"{number}.png", number)
    prepare(
        root / "raw",
        root / "out",
        name="noise",
        preprocess=Preprocess(8),
        val=0.1,
        test=0.1,
        max_bad_fraction=0.0,
        labels=True,
        seed=0,
        workers=1,
    )
    return Prepared(root / "out")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """It is the mirror from which public sets are downloaded."""
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers["Range"] if state.ranges else None
            state.asked.append(self.headers["Range"])
            data = state.files.get(self.path.lstrip("/"))
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if data is None or start >= len(data):
                self.send_error(404 if data is None else 416)
                return
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("Content-Encoding", "x-gzip")  # as some servers say of an archive
            self.end_headers()
            body = data[start:][: state.cuts.pop(0) if state.cuts else None]
            state.sent += len(body)
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        state.url = f"http://127.0.0.1:{httpd.server_port}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("ENCODER_FOUNDRY_MIRROR", f"{state.url}/")
        yield state
        httpd.shutdown()
