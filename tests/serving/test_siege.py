"""The crowd of `make siege` has nothing to say against a sound server, and notices every kind of wrong answer."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.endpoint.mixed_clients import CLIENTS, Crowd, Ledger
from benchmarks.endpoint.processes import growth
from benchmarks.endpoint.request_samples import Truth
from serving.host.runtime import Runtime
from tests.serving.conftest import expected, picture

PICTURES = [picture(seed) for seed in range(16)]
VECTORS = np.stack([expected(pixels) for _, pixels in PICTURES])
TENSORS = np.stack([pixels.transpose(2, 0, 1) for _, pixels in PICTURES])


def besiege(server: Runtime, vectors: NDArray[np.float32], serves: str, enough: Callable[[Ledger], object]) -> Ledger:
    """What the crowd has noted when it is enough."""
    truth = Truth([png for png, _ in PICTURES], TENSORS, {"3": vectors})
    with Crowd(server, "digits-encoder", truth, serves) as crowd:
        end = time.monotonic() + 150
        while not enough(crowd.ledger):
            assert time.monotonic() < end
            time.sleep(0.02)
    return crowd.ledger


def test_on_a_sound_server_every_kind_of_request_gets_what_is_due(server: Runtime) -> None:
    ledger = besiege(server, VECTORS, "3", lambda so_far: {kind for kind, _ in list(so_far.outcomes)} == set(CLIENTS))
    assert (ledger.wrong, ledger.lost) == ([], [])
    assert ledger.outcomes["good", "200"] == len(ledger.latencies)


@pytest.mark.parametrize(
    ("vectors", "serves", "noted"),
    [
        (VECTORS[::-1].copy(), "3", "version 3 differs by"),  # each image has another one's
        (VECTORS, "2", "version 3 answers where 2 is served"),
    ],
)
def test_a_wrong_vector_and_a_wrong_version_are_noted(
    server: Runtime, vectors: NDArray[np.float32], serves: str, noted: str
) -> None:
    assert noted in besiege(server, vectors, serves, lambda so_far: so_far.wrong).wrong[0]


def test_growth_is_counted_after_the_warm_up() -> None:
    minutes = np.arange(100) / 60
    steep = np.where(minutes < 20 / 60, 100 * minutes, 100.0)
    assert growth(np.stack([minutes, steep], 1))["growth, %"] == 0
    assert growth(np.stack([minutes, 100 + minutes], 1))["MiB/min"] == pytest.approx(1)
