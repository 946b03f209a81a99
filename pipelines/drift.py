"""Prefect flow `drift`: are the images that the endpoint gets still like those it was trained on?

`python -m pipelines.drift` asks the running server once and ends with status 1 when they are not:
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

ALARM = 1.0  # times the largest distance that windows of held-out images had


def figures(address: str) -> dict[str, float]:
    """Model and version → drift, of the models that have seen a whole window. Raises StageError without an answer."""
    try:
        text = loopback.request("GET", f"{address}/metrics", timeout=10).text
    except requests.RequestException as error:
        raise StageError(f"no server answers at {address}; run make serve") from error
    return {
        f"{sample.labels['model']} version {sample.labels['version']}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "encoder_drift"
    }


@flow(name="drift")
def check(address: str) -> dict[str, float]:
    """Raises StageError, and so fails, when a model's images have changed."""
    found = figures(address)
    for who, value in found.items():
        get_run_logger().info("%s: drift %.2f", who, value)
    if changed := {who: value for who, value in found.items() if value > ALARM}:
        distances = ", ".join(f"{who} {value:.1f} times" for who, value in changed.items())
        raise StageError(
            f"the images are no longer like those of the training: {distances} the distance that is allowed; "
            "look at what comes in, and train on it if it is what you want embedded"
        )
    return found


def main() -> None:
    Parser(prog="python -m pipelines.drift", description=__doc__).parse_args()
    with command(StageError, name="drift"):
        found = check(Runtime().address("ready"))
        for who, value in found.items():
            print(f"{who}: drift {value:.2f}, allowed {ALARM:.0f}")
        if not found:
            print("no model has seen enough images yet")


if __name__ == "__main__":
    main()
