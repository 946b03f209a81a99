"""One run of the flow: settle what to train on, run what has changed, deploy the champion, say how it ended."""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines.estimation import comparison
from pipelines.estimation.durations import spoken
from pipelines.orchestration import adopt, dvc_graph
from pipelines.orchestration.board import Board
from pipelines.orchestration.display import Display, State
from pipelines.orchestration.log_lines import LogLines
from pipelines.orchestration.stage_process import StageProcess
from pipelines.orchestration.warm.python import WarmPython
from pipelines.project import config, recipes, stage
from pipelines.project.stage import StageError
from pipelines.registry import mlflow_store, receipts
from pipelines.release import endpoint
from pipelines.reporting import ending, results


def run(
    python: WarmPython,
    folder: Path | None,
    recipe: str | None,
    name: str | None,
    changes: Sequence[recipes.Change],
    began: float,
) -> None:
    """The whole of it. python: what the stages are forks of. began: when the command did, by time.monotonic()."""
    settle(folder, recipe, name, changes)
    c = config.load()
    adopt.check_download(c.download)
    adopt.check_recordable(stage.RAW / c.dataset)
    with ThreadPoolExecutor(1) as beside:  # while this thread imports MLflow
        server = None if endpoint.is_verified() else beside.submit(prefect_starter())  # it will be needed
        receipts.reconcile(mlflow_store.connect())  # the store is made once, before several stages speak to it
        nodes, how_long = read_graph(python), ""
        check_images(c.dataset, nodes)
        if all(node.unchanged for node in nodes) and endpoint.is_verified():
            print(f"Nothing to do: all {len(nodes)} stages are unchanged, and the endpoint has been checked.")
        else:
            (server or beside.submit(prefect_starter())).result()
            stages = run_changed(nodes, python, began)
            how_long = comparison.compared(time.monotonic() - began, stages)
    print(f"\n{ending.ending(results.read())}\n")
    print(f"{spoken(time.monotonic() - began)} in all. {how_long}".strip())
    print(f"Next: make serve. Then, in another terminal:\n  {endpoint.curl(c.dataset)}")


def settle(folder: Path | None, recipe: str | None, name: str | None, changes: Sequence[recipes.Change]) -> None:
    """Make params.yaml what the command asks for, and copy the folder's images."""
    if folder:
        adopt.adopt(folder, recipe, name)
    elif recipe:
        text = recipes.read(recipe)
        adopt.check_download(recipes.downloads(text))
        recipes.write(text, f"the recipe {recipe}")
    if changes:
        recipes.write(recipes.changed(changes), "changed: " + ", ".join(map(str, changes)))


def read_graph(python: WarmPython) -> list[dvc_graph.Node]:
    """The stages, as DVC sees them now. Raises StageError with the sentence of DVC or of the stage `settings`."""
    child = python.start("pipelines.orchestration.dvc_graph")
    lines = [line for _, line in child.lines()]
    if child.wait():
        own = [line for line in lines if line.startswith((f"{dvc_graph.SETTINGS}: ", "DVC cannot"))]
        raise StageError(own[0] if own else dvc_graph.unreadable(" ".join(lines)))
    return dvc_graph.parsed(lines[-1])


def check_images(dataset: str, nodes: Sequence[dvc_graph.Node]) -> None:
    """Raises StageError when the images are not here, and no stage makes them."""
    raw = stage.RAW / dataset
    made = {out for node in nodes for out in node.outs}
    if raw.exists() or str(raw) in made or "prepare" in {node.name for node in nodes if node.unchanged}:
        return
    if Path(f"{raw}.dvc").exists():
        raise StageError(
            f"The folder {raw} is missing, but {raw}.dvc is here. Run: dvc checkout {raw}, or dvc pull {raw}.dvc."
        )
    raise StageError(
        f"The folder {raw} is missing. Name a folder: python -m pipelines.flow FOLDER. "
        "Or take a public set: --recipe digits."
    )


def prefect_starter() -> Callable[[], None]:
    """What has Prefect's server running. It takes seconds, and a run with nothing to do needs no server.

    All imports are made here, in the main thread: two threads that import at the same time meet half-made modules.
    """
    from pipelines.orchestration import prefect_server  # noqa: PLC0415

    return prefect_server.start


def run_changed(nodes: Sequence[dvc_graph.Node], python: WarmPython, began: float) -> dict[str, float]:
    """Run what has changed as a Prefect flow: stage → seconds. Ends the process with the sentences of what failed."""
    from pipelines.orchestration import prefect_flow  # noqa: PLC0415 - it imports Prefect

    names = [node.name for node in nodes]
    with display(names) as shown:
        shown.began = began  # when the command began, not the first stage
        state = prefect_flow.pipeline(prefect_flow.Run(nodes, shown, StageProcess(python, shown)), return_state=True)
    if not state.is_completed():
        print(file=sys.stderr)
        sys.exit(str(state.message))
    return {row.name: row.seconds for row in shown.rows.values() if row.state is State.DONE}


def display(names: Sequence[str]) -> Display:
    """A live board on a terminal, and few lines elsewhere."""
    if sys.stdout.isatty():
        return Board(names)
    return LogLines(names)
