"""`foundry status`: what is here, what runs, and what the next run would do."""

import io
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from pipelines.command_line import activity, screen
from pipelines.command_line.disk_use import taken
from serving import ServingError
from serving.host import promoted
from serving.host.runtime import Runtime

PLACES = ("data/raw", "data/prepared", "artifacts", ".dvc/cache", "mlruns", ".prefect", ".scratch")
PROMOTED, PREPARED, LOCK = Path("artifacts/promoted.json"), Path("data/prepared/manifest.json"), Path("dvc.lock")


def show() -> None:
    """Print the table; DVC's answer takes seconds and comes last."""
    screen.table([*data(), *champion(), ("endpoint", endpoint()), ("running", activities()), ("disk", disk())])
    print()
    with waiting("Asking DVC which stages have changed …"):
        sentence = stages()
    print(sentence)


def data() -> Iterator[tuple[str, str]]:
    """The data set of params.yaml, and what is prepared."""
    yield "data set", str(mapping(yaml.safe_load, Path("params.yaml")).get("dataset", "params.yaml names none"))
    found = mapping(json.loads, PREPARED)
    if found:
        counts = ", ".join(f"{count:,} {split}" for split, count in found["splits"].items() if count)
        yield "prepared", f"{found['name']}: {found['images']:,} images ({counts}), {len(found['classes'])} classes"
    else:
        yield "prepared", "nothing yet"


def champion() -> Iterator[tuple[str, str]]:
    """What is promoted, with the version numbers that MLflow gave."""
    try:
        found = promoted.read(PROMOTED)
    except ServingError:
        yield "champion", "none yet"
        return
    versions = {model.method: model.version for model in found.models}
    yield "champion", f"{found.champion} (version {versions[found.champion]} of {found.encoder})"
    yield "versions", ", ".join(f"{method} {version}" for method, version in versions.items())


def endpoint() -> str:
    """Whether a server runs, and whether it is ready."""
    if not activity.is_held(activity.SERVER):
        return "not running (to start it: foundry serve)"
    try:
        runtime = Runtime()
        address, ready = runtime.address("inference"), runtime.address("ready")
    except ServingError:
        return "starting"
    import requests  # noqa: PLC0415 - slow

    from serving.host import loopback  # noqa: PLC0415

    try:
        answer = loopback.request("GET", f"{ready}/ready", timeout=3)
    except requests.RequestException:
        return f"{address}, does not answer"
    return f"{address}, {'ready' if answer.ok else 'not ready'}"


def activities() -> str:
    """The flow and the stages that run."""
    return ", ".join(activity.running()) or "nothing"


def disk() -> str:
    """What takes how much of the disk."""
    sizes = {place: taken(Path(place)) for place in PLACES}
    return ", ".join(f"{place} {screen.size(size)}" for place, size in sizes.items() if size) or "nothing yet"


def stages() -> str:
    """What DVC says of the stages: a sentence. Raises SystemExit with a sentence where it cannot be read."""
    if not LOCK.exists():
        return "No stage has run yet. To run the pipeline: foundry run"
    if "flow" in activity.running():
        return "A flow is running; ask again when it has finished to see which stages have changed."
    from pipelines.orchestration import dvc_graph  # noqa: PLC0415 - slow
    from pipelines.project.stage import StageError  # noqa: PLC0415

    try:
        with redirect_stdout(io.StringIO()):  # what DVC says meanwhile
            nodes = dvc_graph.read()
    except StageError as error:
        sys.exit(str(error))
    changed = [node.name for node in nodes if not node.unchanged]
    if not changed:
        return f"All {len(nodes)} stages are up to date."
    return (
        f"{len(nodes) - len(changed)} of {len(nodes)} stages are up to date. "
        f"The next foundry run does: {', '.join(changed)}."
    )


def mapping(parse: Any, path: Path) -> dict[str, Any]:
    """The file's content; empty where it is missing or damaged, since others say so better."""
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def waiting(what: str) -> Any:
    """A sign of life on a terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console  # noqa: PLC0415 - slow

    return Console(stderr=True).status(what)
