"""A folder of images → a Parquet table of embeddings: `python -m serving.embed FOLDER --out vectors.parquet`.

Straight through ONNX Runtime, or by the running server with --endpoint. Parts that are done are kept beside the table,
so that the same command goes on after a stop. The column `error` says why an image has no embedding.
"""

import argparse
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
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from serving import ServingError, archive, promoted
from serving.admission import admit
from serving.client import Client, ImageError
from serving.core import Encoder
from serving.promoted import Model
from serving.runtime import Runtime
from serving.wire import Pixels, Refused

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
PART = 4096  # images
TOGETHER = 64  # images in memory
Found = NDArray[np.float32] | str  # an embedding (D,), or why there is none


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
            return self.encoder.decode(file.read_bytes())
        except OSError as error:
            return Refused(400, f"It cannot be read: {error.strerror}.")


class Endpoint:
    """Through the running server."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name = client, name

    def __call__(self, files: Sequence[Path]) -> Iterator[Found]:
        for answer in self.client.embed_many(self.name, files, batch=8):
            yield str(answer) if isinstance(answer, ImageError) else answer


def files_of(folder: Path) -> list[Path]:
    """Every image file in a folder and those below it, by name. Raises ServingError when there is none."""
    walk = os.walk(folder, onerror=_refuse)
    found = sorted(Path(at, name) for at, _, names in walk for name in names if Path(name).suffix.lower() in SUFFIXES)
    if not found:
        raise ServingError(f"{folder} holds no image: nothing ends in {', '.join(sorted(SUFFIXES))}.")
    return found


def _refuse(error: OSError) -> None:
    raise ServingError(f"{error.filename} cannot be read: {error.strerror}.")


def key_of(model: Model, folder: Path, files: Sequence[Path]) -> str:
    """Names what a table is made of: the encoder, and each file's path, size and time."""
    digest = hashlib.sha256(model.sha256.encode())
    for file in files:
        stat = file.stat()
        digest.update(
            f"{file.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape")
        )
    return digest.hexdigest()


def make(folder: Path, out: Path, model: Model, embed: Embed) -> str:
    """Write the table, going on where an earlier run stopped; a sentence on what is in it."""
    files = files_of(folder)
    key = key_of(model, folder, files)
    if out.exists() and (pq.read_schema(out).metadata or {}).get(b"key") == key.encode():
        return f"{out} is up to date: {len(files):,} images"
    parts = out.with_name(f"{out.name}.parts")
    if parts.exists() and not (parts / key).exists():
        shutil.rmtree(parts)  # of another encoder, or of other files
    parts.mkdir(parents=True, exist_ok=True)
    (parts / key).touch()
    about = {"key": key, "model": model.name, "method": model.method, "version": model.version, "sha256": model.sha256}
    spans = [(parts / f"{i // PART:06d}.parquet", files[i : i + PART]) for i in range(0, len(files), PART)]
    done = sum(len(span) for path, span in spans if path.exists())
    shown = sys.stderr.isatty()
    with tqdm(total=len(files), initial=done, unit=" images", desc="embed", disable=not shown) as bar:
        for path, span in spans:
            if not path.exists():
                found = []
                for each in embed(span):
                    found.append(each)
                    bar.update()
                write(path, [str(file.relative_to(folder)) for file in span], found, about)
                done += len(span)
                if not shown:
                    print(f"embed {done:,}/{len(files):,} images", file=sys.stderr, flush=True)
    bad = join([path for path, _ in spans], out)
    shutil.rmtree(parts)
    return f"{out}: {len(files) - bad:,} embeddings by {model.name}, version {model.version}; {bad:,} images of no use"


def write(path: Path, names: list[str], found: Sequence[Found], about: dict[str, str]) -> None:
    """One part, whole or not at all."""
    columns = {
        "path": pa.array(names),
        "embedding": pa.array([None if isinstance(f, str) else f for f in found], pa.list_(pa.float32())),
        "error": pa.array([f if isinstance(f, str) else None for f in found], pa.string()),
    }
    beside = path.with_suffix(".part")
    pq.write_table(pa.table(columns).replace_schema_metadata(about), beside)
    os.replace(beside, path)


def join(parts: Sequence[Path], out: Path) -> int:
    """All parts into one table, part by part; how many images have no embedding."""
    beside, bad = out.with_name(f"{out.name}.part"), 0
    with pq.ParquetWriter(beside, pq.read_schema(parts[0])) as writer:
        for part in parts:
            table = pq.read_table(part)
            bad += table.column("embedding").null_count
            writer.write_table(table)
    os.replace(beside, out)
    return bad


def main() -> None:
    """Status 1 when something is wrong; unusable images are in the table."""
    parser = argparse.ArgumentParser(prog="python -m serving.embed", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table, ….parquet")
    parser.add_argument("--model", metavar="NAME", help="a name of artifacts/promoted.json; the champion's without it")
    parser.add_argument("--endpoint", action="store_true", help="ask the running server instead of ONNX Runtime here")
    given = parser.parse_args()
    try:
        of = promoted.read(Path("artifacts/promoted.json"))
        name = given.model or of.encoder
        model = next((model for model in of.models if model.name == name), None)
        if model is None:
            raise ServingError(f"--model is {name}; promoted are {', '.join(m.name for m in of.models)}.")
        with ExitStack() as stack:
            print(make(given.folder, given.out, model, _way(model, given.endpoint, stack)))
    except ServingError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{error.filename or given.out}: {error.strerror or error}.")
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def _way(model: Model, endpoint: bool, stack: ExitStack) -> Embed:
    if endpoint:
        return Endpoint(Client.of(Runtime()), model.name)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    archive.unpack(admit(model, model.version, folder), folder)
    return Direct(Encoder(folder, threads=len(os.sched_getaffinity(0))))


if __name__ == "__main__":
    main()
