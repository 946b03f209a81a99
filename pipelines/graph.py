"""DVC's graph, read once: which stages there are, in which order, and which of them have nothing to do."""

import os
from dataclasses import dataclass

from dvc.exceptions import DvcException
from dvc.repo import Repo

from pipelines.stage import StageError

TARGET = "report"


@dataclass(frozen=True)
class Node:
    """A stage: `address` for DVC, `name` for people, and the addresses of the stages that it waits for."""

    address: str
    name: str
    upstream: tuple[str, ...]
    unchanged: bool


def read() -> list[Node]:
    """The target stage and all that it stands on, every stage after its upstream. Raises StageError."""
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    try:
        with Repo() as repo:
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
                )
                for address, above in ancestors.items()
                if by_address[address].cmd
            ]
    except DvcException as error:
        raise StageError(str(error)) from None
