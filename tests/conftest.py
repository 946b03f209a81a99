"""What all tests stand on."""

import signal
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

# A job in the background inherits that Ctrl-C is ignored, one of nohup that SIGHUP is; so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# All files of such a package share a fixture that takes long: one worker runs them, and so builds it once.
SHARED = ("tests/flows", "tests/pipelines/registry/receipts", "tests/serving/watchdog")

# Minutes each; they begin first, so that no core is left with one of them when the others have no more to do.
LONG = (
    "tests/flows",
    "tests/test_add_a_method.py",
    "tests/pipelines/machine/test_distributed.py",
    "tests/pipelines/test_flow.py",
    "tests/pipelines/test_pretrain.py",
    "tests/pipelines/registry/receipts",
    "tests/pipelines/evaluation/test_unlabelled.py",
    "tests/benchmarks/test_benchmarks.py",
    "tests/pipelines/registry/test_runs.py",
    "tests/pipelines/test_seeds.py",
    "tests/pipelines/engine/test_weight_sources.py",
    "tests/pipelines/test_kills.py",
)


def group(nodeid: str) -> str:
    """What one worker runs from beginning to end: a package of SHARED, or else a file."""
    file = nodeid.split("::", 1)[0]
    return next((package for package in SHARED if file.startswith(f"{package}/")), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(group(item.nodeid)) if group(item.nodeid) in LONG else len(LONG))


@pytest.hookimpl(optionalhook=True)  # pytest-xdist may be switched off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """--dist loadfile, where a package of SHARED counts as one file.

    --dist loadgroup does so by marks, but pytest-xdist 3.8 ignores them under pytest 9.2 (pytest-xdist's issue 1386).
    """
    if config.getvalue("dist") != "loadfile":
        return None
    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = group
    return scheduler
