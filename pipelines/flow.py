"""The whole line as a Prefect flow: `python -m pipelines.flow [FOLDER] [--recipe NAME]`.

The graph and its cache are DVC's; Prefect adds when, what beside what, and the record of it. One task run a stage.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

import pipelines.orchestration.prefect_settings  # noqa: F401 isort: skip - before Prefect, which reads them at import
from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from data import DataError
from pipelines.machine import hardware
from pipelines.orchestration import adopt, dvc_graph, prefect_server, stop
from pipelines.project import config, recipes, stage
from pipelines.project.parse import ConfigError
from pipelines.project.stage import StageError
from pipelines.registry import mlflow_store, receipts
from pipelines.release import endpoint
from pipelines.reporting import results, tables
from serving.host.command import Parser, command

# Not the size of the pool: a task that waits for its upstream holds a thread.
SLOTS = threading.Semaphore(hardware.side_by_side())
TRAINS = ("pretrain@", "finetune@", "baseline@")
CHATTER = (
    *("Running stage", "> ", "Updating lock file", "Generating lock file", "ERROR: failed to reproduce"),
    "WARNING: Process '",  # DVC's word for a lock that a stopped flow has left
    *("To track the changes", "To enable auto staging", "Use `dvc push`", "\tgit add", "\tdvc config"),
)


@task
def run_stage(node: dvc_graph.Node) -> State[Any]:
    """One stage through DVC. Fails with the sentence that the stage itself printed."""
    if node.unchanged:
        say(node.name, "unchanged")
        return Completed(name="Unchanged", message="nothing that it depends on has changed")
    with SLOTS:
        if stop.STOPPING.is_set():
            return Failed(message=f"{node.name}: not started, the flow was stopped")
        returned, lines = repro(node)
    if returned:
        own = [line for line in lines if line.startswith((f"{node.name}: ", "error: "))]
        return Failed(message=own[-1] if own else f"{node.name}: " + " / ".join(lines[-3:]))
    skipped = any("didn't change, skipping" in line for line in lines)
    return Completed(name="Unchanged") if skipped else Completed()


def repro(node: dvc_graph.Node) -> tuple[int, list[str]]:
    """Run DVC for one stage alone: its exit code and the lines that are not DVC's chatter."""
    return run(
        node.name, "pipelines.orchestration.dvc_process", "--wait-for-lock", "repro", "--single-item", node.address
    )


def run(name: str, *module: str) -> tuple[int, list[str]]:
    """Run a module as a stage is run, saying its lines: its exit code and the lines."""
    threads = str(hardware.threads())
    with stop.deaf_children():  # while they import, Ctrl-C would be a traceback
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=os.environ
            | {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "OMP_NUM_THREADS": threads,
                "OPENBLAS_NUM_THREADS": threads,
                "PYTHONUNBUFFERED": "1",
                "DVC_NO_ANALYTICS": "1",
                stage.FLOW: str(os.getpid()),
            },
        )
    assert process.stdout is not None
    stop.RUNNING.add(process)
    lines = []
    for line in process.stdout:
        if line.strip() and not line.startswith(CHATTER):
            lines.append(line.rstrip())
            say(name, line.rstrip())
    returned = process.wait()
    stop.RUNNING.discard(process)
    return returned, lines


@task(task_run_name="plan")
def plan(trainings: list[str]) -> State[Any]:
    """Before anything trains: is all of it possible, and how long does it take? Fails with the plan's own sentence."""
    returned, lines = run("plan", "pipelines.plan", *trainings)
    refused = [line for line in lines if line.startswith("plan: ")]
    return Failed(message=refused[-1]) if returned and refused else Completed()


def say(name: str, line: str) -> None:
    """A stage's line for the terminal and for Prefect's page."""
    shown = line.removeprefix(f"{name} ").removeprefix(f"{name}: ")
    sys.stdout.write(f"{name:<16} {shown}\n")  # in one piece: stages run side by side
    sys.stdout.flush()
    get_run_logger().info(shown)


@flow(name="encoder-foundry", task_runner=ThreadPoolTaskRunner())  # type: ignore[arg-type]
def pipeline(nodes: list[dvc_graph.Node]) -> State[Any]:
    """Every stage as soon as what it stands on is done; a failure stops its dependants only."""
    with stop.stages_first():
        return run_all(nodes)


def run_all(nodes: list[dvc_graph.Node]) -> State[Any]:
    """Submit every stage, wait for all of them, then deploy."""
    futures: dict[str, PrefectFuture[Any]] = {}
    trainings = [node.name for node in nodes if node.name.startswith(TRAINS) and not node.unchanged]
    for node in nodes:
        upstream = [futures[address] for address in node.upstream]
        if "plan" in futures:
            upstream.append(futures["plan"])
        named = run_stage.with_options(task_run_name=node.name)
        futures[node.address] = named.submit(node, wait_for=upstream)  # type: ignore[call-overload]
        if node.name == "prepare" and trainings:
            futures["plan"] = plan.submit(trainings, wait_for=[futures[node.address]])  # type: ignore[call-overload]
    failed = []
    for name, future in futures.items():
        future.wait()
        if future.state.is_failed() or future.state.is_crashed():
            failed.append(future.state.message or f"{name}: failed")
    if failed:
        return Failed(message="\n".join(failed))
    c = config.load()
    create_table_artifact(tables.accuracies(results.read()), key=f"{slug(c.dataset)}-results", description=c.dataset)
    serve()
    return Completed()


@task(task_run_name="deploy")
def serve() -> None:
    """Champion and methods on TorchServe, their answers compared with torch's."""
    with endpoint.server() as runtime:
        endpoint.put(runtime)
        answer, cosine = endpoint.check(runtime)
    print(f"\nthe endpoint answers {answer}\nsmallest cosine to torch over every endpoint: {cosine:.6f}")


def slug(name: str) -> str:
    """A name as Prefect takes it for an artifact: small letters, digits and dashes."""
    return "".join(ch if ch.isascii() and ch.isalnum() else "-" for ch in name.lower()).strip("-") or "dataset"


def check_images(dataset: str, nodes: list[dvc_graph.Node]) -> None:
    """Raises StageError when the images are not here, and no stage makes them."""
    raw = stage.RAW / dataset
    made = {out for node in nodes for out in node.outs}
    if raw.exists() or str(raw) in made or "prepare" in {node.name for node in nodes if node.unchanged}:
        return
    if Path(f"{raw}.dvc").exists():
        raise StageError(f"{raw} is not here, but {raw}.dvc is. Run: dvc checkout {raw}, or dvc pull {raw}.dvc.")
    raise StageError(
        f"{raw} is not here. Name a folder: python -m pipelines.flow FOLDER. Or take a public set: --recipe digits."
    )


def main() -> None:
    parser = Parser(prog="python -m pipelines.flow", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="a folder of images; without it, what params.yaml names")
    parser.add_argument(
        "--recipe", metavar="NAME", help="a file of recipes/, for its data set or FOLDER (then: photos)"
    )
    parser.add_argument("--name", help="what to call the data set of FOLDER; without it, the folder's own name")
    given = parser.parse_args()
    if given.name and not given.folder:
        parser.error("--name goes with a FOLDER")
    stop.install()
    with command(ConfigError, DataError, StageError), stage.locked("flow"):
        flow_of(given.folder, given.recipe, given.name)


def flow_of(folder: Path | None, recipe: str | None, name: str | None) -> None:
    """Settle what to train on, run the graph, say how it ended."""
    started = time.monotonic()
    if folder:
        adopt.adopt(folder, recipe or "photos", name)
    elif recipe:
        text = recipes.read(recipe)
        adopt.check_download(yaml.safe_load(text)["download"])
        recipes.write(text, f"the recipe {recipe}")
    c = config.load()
    adopt.check_download(c.download)
    adopt.check_recordable(stage.RAW / c.dataset)
    receipts.reconcile(mlflow_store.connect())  # the store is made once, before several stages speak to it
    nodes = dvc_graph.read()
    check_images(c.dataset, nodes)
    prefect_server.start()
    state = pipeline(nodes, return_state=True)
    if not state.is_completed():
        sys.exit(f"\n{state.message}")
    print(f"\n{ending()}")
    print(f"\n{time.monotonic() - started:.0f} s in all. To serve it: make serve, then\n  {endpoint.curl(c.dataset)}")


def ending() -> str:
    """The table, the verdict, and where the page is."""
    r = results.read()
    verdict = "\n".join(r.verdict())
    return f"{tables.head(r)}\n\n{tables.text(tables.accuracies(r))}\n\n{verdict}\n\nPictures and curves: {stage.PAGE}"


if __name__ == "__main__":
    main()
