"""What all tests stand on."""

import signal
from pathlib import Path

import pytest

# A job in the background inherits that Ctrl-C is ignored, one of nohup that SIGHUP is; so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Minutes each; they begin first, so that no core is left with one of them when the others have no more to do.
LONG = (
    "line",
    "distributed",
    "flow",
    "pretrain",
    "registry",
    "unlabelled",
    "benchmarks",
    "tracking",
    "seeds",
    "init",
    "kills",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        name = Path(item.path).stem.removeprefix("test_")
        return LONG.index(name) if name in LONG else len(LONG)

    items.sort(key=rank)
