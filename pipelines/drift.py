"""Prefect flow `drift`: do the images that the endpoint gets still look like the training images?

`python -m pipelines.drift` asks the running server once. It exits with status 1 when they do not:
docs/how-to/monitor-drift.md.
"""

import requests
from prometheus_client.parser import text_string_to_metric_families

import pipelines.orchestration.prefect_settings  # noqa: F401 isort: skip - before Prefect, which reads them at import
from prefect import flow, get_run_logger

from pipelines.project.stage import StageError
from serving.host import loopback
from serving.host.command import Parser, command
from serving.host.runtime import Runtime

ALARM = 1.0  # a multiple of the largest distance that windows of held-out images had


def figures(address: str) -> dict[str, float]:
    """Model and version → drift, for models that have seen a whole window. Raises StageError without an answer."""
    try:
        text = loopback.request("GET", f"{address}/metrics", timeout=10).text
    except requests.RequestException as error:
        raise StageError(f"No server answers at {address}. Start one with `make serve`.") from error
    return {
        f"{sample.labels['model']} version {sample.labels['version']}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "encoder_drift"
    }


@flow(name="drift")
def check(address: str) -> dict[str, float]:
    """Raises StageError when the images of a model have changed, so that the flow run fails."""
    found = figures(address)
    for who, value in found.items():
        get_run_logger().info("%s: drift %.2f", who, value)
    if changed := {who: value for who, value in found.items() if value > ALARM}:
        distances = ", ".join(f"{who} {value:.1f} times" for who, value in changed.items())
        raise StageError(
            f"The images that the endpoint gets differ from the training images: {distances} the allowed distance. "
            "Check what is sent. If these are the images that you want to embed, train on them."
        )
    return found


def main() -> None:
    Parser(prog="python -m pipelines.drift", description=__doc__).parse_args()
    with command(StageError, name="drift"):
        found = check(Runtime().address("ready"))
        for who, value in found.items():
            print(f"{who}: drift {value:.2f} (allowed: up to {ALARM:.0f})")
        if not found:
            print("No model has seen enough images yet.")


if __name__ == "__main__":
    main()
