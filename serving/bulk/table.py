"""Write the Parquet table of embeddings in parts, so that a stop loses at most one. Other files are never replaced.

Arrow gets open files, not their names, because it cannot open a name that is not UTF-8. It reads them without its
threads: one that still holds a Python file when Python exits aborts the process (apache/arrow issue 34314).
"""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from serving import ServingError
from serving.host.files import escaped

Found = NDArray[np.float32] | str  # an embedding (D,), or why there is none
OURS = re.compile(r"\d{6}\.(parquet|part)|[0-9a-f]{64}")  # in the folder of parts


def key_at(out: Path) -> str | None:
    """The key of the table that is there already, or None. Raises ServingError when no table can be written there."""
    if not out.parent.is_dir():
        raise ServingError(f"Option --out is {out}, but there is no folder {out.parent}. Create it first.")
    if out.is_dir():
        raise ServingError(f"Option --out is {out}, which is a folder. Name a file in it: {out / 'vectors.parquet'}.")
    if not out.exists():
        return None
    try:
        key = (_schema(out).metadata or {}).get(b"key") if out.is_file() else None
    except pa.ArrowException:
        key = None
    if key is None:  # not ours: it must not be replaced
        raise ServingError(f"Option --out is {out}, but that file is no table of this command. Name another file.")
    return str(key.decode())


def scratch(out: Path, key: str) -> Path:
    """The folder of finished parts. Parts with another key are removed. Raises ServingError."""
    parts = out.with_name(f"{out.name}.parts")
    if parts.exists() and not (parts / key).exists():  # from another encoder, or from other files
        if foreign := [path.name for path in parts.iterdir() if not OURS.fullmatch(path.name)]:
            raise ServingError(
                f"The folder {parts} is for parts of the table, but holds {escaped(foreign[0])}. Name another --out."
            )
        shutil.rmtree(parts)
    parts.mkdir(exist_ok=True)
    (parts / key).touch()
    return parts


def write(path: Path, names: list[str], found: Sequence[Found], about: dict[str, str]) -> None:
    """Write one part, whole or not at all."""
    columns = {
        "path": pa.array(names),
        "embedding": pa.array([None if isinstance(f, str) else f for f in found], pa.list_(pa.float32())),
        "error": pa.array([f if isinstance(f, str) else None for f in found], pa.string()),
    }
    beside = path.with_suffix(".part")
    with beside.open("wb") as file:
        pq.write_table(pa.table(columns).replace_schema_metadata(about), file)
    os.replace(beside, path)


def join(parts: Sequence[Path], out: Path) -> int:
    """Join all parts into one table; return how many images have no embedding."""
    beside, bad = out.with_name(f"{out.name}.part"), 0
    with beside.open("wb") as file, pq.ParquetWriter(file, _schema(parts[0])) as writer:
        for part in parts:
            with part.open("rb") as source:
                table = pq.ParquetFile(source, pre_buffer=False).read(use_threads=False)
            bad += table.column("embedding").null_count
            writer.write_table(table)
    os.replace(beside, out)
    return bad


def _schema(path: Path) -> pa.Schema:
    with path.open("rb") as file:
        return pq.read_schema(file)
