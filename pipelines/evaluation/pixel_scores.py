"""What several stages need and one of them computes, kept in the scratch folder by a digest of what decides it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.project import stage
from pipelines.saving.atomic_files import replace

Content = dict[str, Any]


def kept(name: str, decided_by: Mapping[str, Any], compute: Callable[[], Content]) -> Content:
    """compute(), as JSON has it, or what an earlier call with the same deciding values got; others wait meanwhile."""
    digest = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()[:16]
    path = stage.SCRATCH / name / f"{digest}.json"
    with stage.locked(name, aloud=False):  # for seconds
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            content = json.dumps(compute()).encode()
            replace(path, lambda file: file.write(content))
        found: Content = json.loads(path.read_text(encoding="utf-8"))
    return found
