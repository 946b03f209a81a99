"""DVC's graph, read once: which stages there are, in which order, and which of them have nothing to do."""

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from pipelines.orchestration.dvc_process import mend
from pipelines.orchestration.stop import deaf_children
from pipelines.project.stage import StageError

TARGET, SETTINGS = "report", "settings"


@dataclass(frozen=True)
class Node:
    """A stage: `address` for DVC, `name` for people, the addresses that it waits for, and the paths that it makes."""

    address: str
    name: str
    upstream: tuple[str, ...]
    unchanged: bool
    outs: tuple[str, ...]


def bring_up_to_date(target: str) -> None:
    """Do one stage, as the flow does the others. Raises StageError with the stage's own sentence, or DVC's."""
    command = [sys.executable, "-m", "pipelines.orchestration.dvc_process", "--wait-for-lock"]
    with deaf_children():
        process = subprocess.Popen(
            [*command, "repro", "--single-item", target],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    printed, _ = process.communicate()
    if process.returncode:
        own = [line for line in printed.splitlines() if line.startswith(f"{target}: ")]
        raise StageError(own[-1] if own else f"DVC cannot read the pipeline: {' '.join(printed.split())[:300]}")


def read() -> list[Node]:
    """The target stage and all that it stands on, every stage after its upstream. Raises StageError.

    Brings artifacts/settings.yaml up to date first: only by that file DVC sees which numbers have changed.
    """
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # a stage is `python -m …`
    logging.getLogger("dvc").setLevel(logging.ERROR)  # it warns of locks of a flow that was stopped, and removes them
    try:
        mend()
        with Repo() as repo:
            bring_up_to_date(SETTINGS)
            graph = repo.index.graph
            by_address = {s.addressing: s for s in graph}
            ancestors: dict[str, set[str]] = {}

            def visit(address: str) -> set[str]:
                if address not in ancestors:
                    direct = {s.addressing for s in graph.successors(by_address[address])}
                    ancestors[address] = set()  # in this order: upstream first
                    found = direct.union(*map(visit, direct))
                    del ancestors[address]
                    ancestors[address] = found
                return ancestors[address]

            visit(TARGET)
            changed = set(repo.status(targets=[TARGET], with_deps=True))
            return [
                Node(
                    address,
                    address.rsplit(":", 1)[-1],
                    tuple(s.addressing for s in graph.successors(by_address[address]) if s.cmd),
                    not changed & (above | {address}),
                    tuple(os.path.relpath(out.fs_path) for out in by_address[address].outs),
                )
                for address, above in ancestors.items()
                if by_address[address].cmd
            ]
    except (DvcException, OSError, UnicodeError) as error:
        raise StageError(f"DVC cannot read the pipeline: {error}") from None
