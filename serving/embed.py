"""A folder of images → a Parquet table of embeddings: `python -m serving.embed FOLDER --out vectors.parquet`.

It runs the encoder in this process, or asks the running server with --endpoint. Finished parts are kept beside the
table, so that the same command resumes after a stop. The column `error` says why an image has no embedding.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from serving import ServingError
from serving.bulk.folder import SUFFIXES, Entry, entries
from serving.bulk.table import Found, join, key_at, scratch, write
from serving.client import Client, ImageError
from serving.host import promoted
from serving.host.command import Parser, command
from serving.host.files import Unreadable, escaped, read
from serving.host.promoted import Model
from serving.host.runtime import Runtime
from serving.rollout import archive
from serving.rollout.admission import admit
from serving.worker.encoder import Encoder
from serving.worker.payload import Pixels, Refused

PART = 4096  # images
TOGETHER = 64  # images in memory


class Embed(Protocol):
    """Image files → what was found, in order."""

    def __call__(self, files: Sequence[Path]) -> Iterator[Found]: ...


class Direct:
    """Through ONNX Runtime in this process."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def __call__(self, files: Sequence[Path]) -> Iterator[Found]:
        for i in range(0, len(files), TOGETHER):
            images = self.encoder.map(self.decode, files[i : i + TOGETHER])
            usable = [image for image in images if not isinstance(image, Refused)]
            rows = iter(self.encoder.embed(np.stack(usable)) if usable else ())
            for image in images:
                yield image.reason if isinstance(image, Refused) else next(rows)

    def decode(self, file: Path) -> Pixels | Refused:
        try:
            return self.encoder.decode(read(file))
        except Unreadable as reason:
            return Refused(400, f"It cannot be read: {reason}.")


class Endpoint:
    """Through the running server."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name = client, name

    def __call__(self, files: Sequence[Path]) -> Iterator[Found]:
        for answer in self.client.embed_many(self.name, files, batch=8):
            yield str(answer) if isinstance(answer, ImageError) else answer


def key_of(model: Model, folder: Path, found: Sequence[Entry]) -> str:
    """Identifies the contents of a table: a digest over the encoder and each file's path, size and time."""
    digest = hashlib.sha256(model.sha256.encode())
    for entry in found:
        digest.update(os.fsencode(entry.path.relative_to(folder)))
        digest.update(f"\0{entry.size}\0{entry.time}\0{entry.reason or ''}\n".encode())
    return digest.hexdigest()


def make(folder: Path, out: Path, model: Model, embed: Embed) -> str:
    """Write the table, resuming where an earlier run stopped; return a summary."""
    before = key_at(out)
    found, others = entries(folder)
    key = key_of(model, folder, found)
    if before == key:
        return f"{out} is up to date: {len(found):,} images"
    parts = scratch(out, key)
    about = {"key": key, "model": model.name, "method": model.method, "version": model.version, "sha256": model.sha256}
    spans = [(parts / f"{i // PART:06d}.parquet", found[i : i + PART]) for i in range(0, len(found), PART)]
    done = sum(len(span) for path, span in spans if path.exists())
    shown = sys.stderr.isatty()
    with tqdm(total=len(found), initial=done, unit=" images", desc="embed", disable=not shown) as bar:
        for path, span in spans:
            if not path.exists():
                rows = []
                embedded = embed([entry.path for entry in span if entry.reason is None])
                for entry in span:
                    rows.append(entry.reason or next(embedded))
                    bar.update()
                write(path, [escaped(entry.path.relative_to(folder)) for entry in span], rows, about)
                done += len(span)
                if not shown:
                    print(f"embed {done:,}/{len(found):,} images", file=sys.stderr, flush=True)
    bad = join([path for path, _ in spans], out)
    shutil.rmtree(parts)
    summary = (
        f"{out}: {len(found) - bad:,} embeddings by {model.name}, version {model.version}; "
        f"{bad:,} images that cannot be used"
    )
    return f"{summary}; {others:,} other files skipped (no {', '.join(sorted(SUFFIXES))})" if others else summary


def main() -> None:
    """Exit status 1 when something is wrong. Images that cannot be used are rows of the table."""
    parser = Parser(prog="python -m serving.embed", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of images, with all folders in it")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the table to write, such as vectors.parquet"
    )
    parser.add_argument("--model", metavar="NAME", help="a name of artifacts/promoted.json (default: the champion)")
    parser.add_argument(
        "--endpoint", action="store_true", help="ask the running server instead of running the encoder here"
    )
    given = parser.parse_args()
    with command(), ExitStack() as stack:
        of = promoted.read(Path("artifacts/promoted.json"))
        name = given.model or of.encoder
        model = next((model for model in of.models if model.name == name), None)
        if model is None:
            raise ServingError(f"Option --model is {name}. Allowed: {', '.join(m.name for m in of.models)}.")
        try:
            print(make(given.folder, given.out, model, _way(model, given.endpoint, stack)))
        except KeyboardInterrupt:
            print("\nStopped. Run the same command again to resume.", file=sys.stderr)
            raise


def _way(model: Model, endpoint: bool, stack: ExitStack) -> Embed:
    if endpoint:
        return Endpoint(Client.of(Runtime()), model.name)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    archive.unpack(admit(model, model.version, folder), folder)
    return Direct(Encoder(folder, threads=len(os.sched_getaffinity(0))))


if __name__ == "__main__":
    main()
