"""How the tests embed N photos: by an encoder that counts what it is asked for, or by the command."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from serving.bulk.table import Found
from serving.embed import Direct
from tests.serving.conftest import ROOT

N = 30


class Counting:
    """Direct, which counts what it is asked for, and stops in the middle."""

    def __init__(self, direct: Direct, stop_after: int = 10**9) -> None:
        self.direct, self.left, self.asked = direct, stop_after, 0

    def __call__(self, files: Sequence[Path]) -> Iterator[Found]:
        for found in self.direct(files):
            if not self.left:
                raise KeyboardInterrupt
            self.left, self.asked = self.left - 1, self.asked + 1
            yield found


def start(*arguments: object, cwd: Path, **more: str) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "serving.embed", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | more
    return subprocess.Popen(line, cwd=cwd, env=environment, stdout=-1, stderr=-1, text=True)
