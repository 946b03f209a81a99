"""One TorchServe under a watchdog, which all tests of this package disturb."""

from collections.abc import Iterator

import pytest

from serving.deploy import deploy, rollback
from serving.torchserve.process import Server
from tests.serving.conftest import MakeArchive, entry, promote, ready, until, watched
from tests.serving.watchdog.workers import NAME


@pytest.fixture(scope="package")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without a model."""
    with watched(tmp_path_factory.mktemp("watched") / "run") as started:
        yield started


@pytest.fixture(scope="package")
def server(started: Server, tmp_path_factory: pytest.TempPathFactory, make_archive: MakeArchive) -> Server:
    """It was given version 1, then 2, and was rolled back: version 1 is what it must serve, whatever happens."""
    assert ready(started).status_code == 503  # nothing is served
    folder = tmp_path_factory.mktemp("promoted")
    for version in ("1", "2"):
        deploy(promote(folder, entry(NAME, make_archive(version), version)), started.runtime)
    rollback(started.runtime)
    until(lambda: ready(started).ok and ready(started).json()["models"][NAME]["version"] == "1")
    return started
