"""Requests that broke a server once, or nearly, against both: `make fuzz` adds those that it finds to corpus/."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from fastapi import HTTPException, Request

from benchmarks.endpoint.fuzzing.exchange import Endpoint
from serving.client import Client
from serving.fastapi.body import read
from serving.host.runtime import Runtime
from serving.torchserve.management import Management
from tests.serving.conftest import expected, picture

NAME = "digits-encoder"
CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.http"))
PNG, PIXELS = picture(1)


def ask(runtime: Runtime, path: Path) -> None:
    """Raises AssertionError at an answer that is not documented, and when an image is no longer embedded rightly."""
    Endpoint(runtime.address("inference"), runtime.token("inference"), NAME).ask(path.read_bytes())
    np.testing.assert_allclose(Client.of(runtime).embed(NAME, PNG), expected(PIXELS), rtol=1e-4, atol=1e-5)


def workers(runtime: Runtime) -> list[int]:
    return [worker["pid"] for worker in Management(runtime).versions(NAME)["3"]["workers"]]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_torchserve_says_what_is_wrong_and_its_worker_lives_on(server: Runtime, path: Path) -> None:
    before = workers(server)
    ask(server, path)
    assert workers(server) == before


# Starlette leaves the file of a part that never ends to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function SpooledTemporaryFile")
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_second_server_says_what_is_wrong_and_lives_on(second: Runtime, path: Path) -> None:
    ask(second, path)


def test_a_body_that_ends_early_is_refused_and_no_failure_of_the_second_server() -> None:
    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    with pytest.raises(HTTPException, match="ended too early"):
        asyncio.run(read(Request({"type": "http", "method": "POST", "headers": []}, gone)))
