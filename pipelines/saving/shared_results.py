"""What several stages need and one of them computes, kept in the scratch folder by a digest of what decides it."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.project import stage


def kept(name: str, decided_by: Mapping[str, Any], fill: Callable[[Path], None]) -> Path:
    """A folder with the files of `fill`, of this call or of an earlier one with the same deciding values.

    Others wait meanwhile.
    """
    digest = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()[:16]
    folder = stage.SCRATCH / name / digest
    with stage.locked(name, aloud=False):  # for seconds
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            fill(unfinished)
            unfinished.rename(folder)
    return folder
