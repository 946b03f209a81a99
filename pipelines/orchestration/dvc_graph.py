"""DVC's graph: which stages there are, in which order, and which of them have nothing to do.

`python -m pipelines.orchestration.dvc_graph` prints it as one line of JSON, so that a flow need not import DVC.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

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


def read() -> list[Node]:
    """The target stage and all that it depends on, every stage after its upstream. Raises StageError.

    Runs the stage `settings` first, since DVC sees only by its file which numbers have changed.
    """
    from dvc.cli import main  # noqa: PLC0415
    from dvc.exceptions import DvcException  # noqa: PLC0415
    from dvc.repo import Repo  # noqa: PLC0415

    from pipelines.orchestration.dvc_process import mend  # noqa: PLC0415

    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # a stage is `python -m …`
    try:
        mend()
        with Repo() as repo:
            graph = repo.index.graph
            if main(["repro", "--single-item", SETTINGS]):
                raise DvcException("The stage settings failed.")
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
        raise StageError(unreadable(str(error))) from None


def parsed(line: str) -> list[Node]:
    """The nodes of the line that this module prints."""
    return [Node(**(found | {key: tuple(found[key]) for key in ("upstream", "outs")})) for found in json.loads(line)]


def unreadable(reason: str) -> str:
    """The message, in one line, where DVC fails on the pipeline's files."""
    why = " ".join(reason.split())[:300].rstrip(".")
    return f"DVC cannot read the pipeline ({why}). Correct that, then run the command again."


def main() -> None:
    import logging  # noqa: PLC0415

    logging.getLogger("dvc").setLevel(logging.ERROR)  # it warns of locks of a flow that was stopped, and removes them
    try:
        print(json.dumps([asdict(node) for node in read()]))
    except StageError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
