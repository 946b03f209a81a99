"""The flow that watches for drift reads what the server tells Prometheus, and fails when images have changed."""

from collections.abc import Iterator

import pytest

from pipelines.project.stage import StageError
from serving.host.free_ports import free_ports
from serving.torchserve import ready

METRICS = """# HELP encoder_drift d
# TYPE encoder_drift gauge
encoder_drift{model="digits-encoder",version="1"} VALUE
encoder_drift{model="digits-mae",version="2"} 0.25
encoder_requests_total{model="digits-encoder",status="200",version="1"} 7
"""


@pytest.fixture(scope="module", autouse=True)
def harness() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness  # noqa: PLC0415 - it reads the environment at import

    with prefect_test_harness():
        yield


def metrics_of(value: float) -> Iterator[str]:
    """The address of a server that says so."""
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    with ready.serve(address, dict, METRICS.replace("VALUE", str(value)).encode):
        yield address


def test_images_like_those_of_the_training_pass() -> None:
    from pipelines.drift import check  # noqa: PLC0415

    for address in metrics_of(0.75):
        assert check(address) == {"digits-encoder version 1": 0.75, "digits-mae version 2": 0.25}


def test_changed_images_fail_the_flow_and_are_named() -> None:
    from pipelines.drift import check  # noqa: PLC0415

    for address in metrics_of(3.2):
        with pytest.raises(StageError, match=r"digits-encoder version 1 3\.2 times the allowed distance"):
            check(address)


def test_without_a_server_there_is_a_sentence() -> None:
    from pipelines.drift import check  # noqa: PLC0415

    with pytest.raises(StageError, match="No server answers at"):
        check("http://127.0.0.1:9")
