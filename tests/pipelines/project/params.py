"""params.yaml with one key changed."""

from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from tests.pipelines.small_project import ROOT

MISSING = object()


def changed(folder: Path, key: str, value: Any) -> Path:
    """params.yaml with one key set, or removed."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    *sections, last = key.split(".")
    section = reduce(dict.__getitem__, sections, params)
    if value is MISSING:
        del section[last]
    else:
        section[last] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    return path
