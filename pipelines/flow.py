"""The whole line as a Prefect flow: `python -m pipelines.flow [FOLDER] [--recipe WORD]`.

The graph and its cache are DVC's; Prefect adds when, what beside what, and the record of it. One task run a stage.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path.cwd()
SETTINGS = {
    "PREFECT_HOME": str(ROOT / ".prefect"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the flow prints its own lines; all are in Prefect's page
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a busy machine is slow to start it
    "DO_NOT_TRACK": "1",
}
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)  # before Prefect reads them, at import

from prefect import State, flow, get_run_logger, task  # noqa: E402
from prefect.artifacts import create_table_artifact  # noqa: E402
from prefect.futures import PrefectFuture  # noqa: E402
from prefect.states import Completed, Failed  # noqa: E402
from prefect.task_runners import ThreadPoolTaskRunner  # noqa: E402

from models.methods import METHODS  # noqa: E402
from pipelines import config, deploy, graph, hardware, report, results, stage, table, tracking  # noqa: E402
from pipelines.convert import ConfigError  # noqa: E402
from pipelines.stage import StageError  # noqa: E402

SIDE_BY_SIDE = min(len(METHODS), 1 + hardware.cores())
SLOTS = threading.Semaphore(SIDE_BY_SIDE)  # not the size of the pool: a task that waits for its upstream holds a thread
CHATTER = (
    *("Running stage", "> ", "Updating lock file", "Generating lock file", "ERROR: failed to reproduce"),
    *("To track the changes", "To enable auto staging", "Use `dvc push`", "\tgit add", "\tdvc config"),
)


@task
def run_stage(node: graph.Node) -> State[Any]:
    """One stage through DVC. Fails with the sentence that the stage itself printed."""
    if node.unchanged:
        say(node.name, "unchanged")
        return Completed(name="Unchanged", message="nothing that it depends on has changed")
    with SLOTS:
        returned, lines = repro(node)
    if returned:
        own = [line for line in lines if line.startswith((f"{node.name}: ", "error: "))]
        return Failed(message=own[-1] if own else f"{node.name}: " + " / ".join(lines[-3:]))
    skipped = any("didn't change, skipping" in line for line in lines)
    return Completed(name="Unchanged") if skipped else Completed()


def repro(node: graph.Node) -> tuple[int, list[str]]:
    """Run DVC for one stage alone: its exit code and the lines that are not DVC's chatter."""
    threads = str(max(1, hardware.cores() // SIDE_BY_SIDE))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.child", "--wait-for-lock", "repro", "--single-item", node.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "PYTHONUNBUFFERED": "1",
            "DVC_NO_ANALYTICS": "1",
        },
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        if line.strip() and not line.startswith(CHATTER):
            lines.append(line.rstrip())
            say(node.name, line.rstrip())
    return process.wait(), lines


def say(name: str, line: str) -> None:
    """A stage's line for the terminal and for Prefect's page."""
    shown = line.removeprefix(f"{name} ").removeprefix(f"{name}: ")
    sys.stdout.write(f"{name:<16} {shown}\n")  # in one piece: stages run side by side
    sys.stdout.flush()
    get_run_logger().info(shown)


@flow(name="encoder-foundry", task_runner=ThreadPoolTaskRunner())  # type: ignore[arg-type]
def pipeline(nodes: list[graph.Node]) -> State[Any]:
    """Every stage as soon as what it stands on is done; a failure stops its dependants only."""
    futures: dict[str, PrefectFuture[Any]] = {}
    for node in nodes:
        upstream = [futures[address] for address in node.upstream]
        named = run_stage.with_options(task_run_name=node.name)
        futures[node.address] = named.submit(node, wait_for=upstream)  # type: ignore[call-overload]
    failed = []
    for node in nodes:
        futures[node.address].wait()
        state = futures[node.address].state
        if state.is_failed() or state.is_crashed():
            failed.append(state.message or f"{node.name}: failed")
    if failed:
        return Failed(message="\n".join(failed))
    c = config.load()
    create_table_artifact(table.accuracies(results.read()), key=f"{slug(c.dataset)}-results", description=c.dataset)
    serve()
    return Completed()


@task(task_run_name="deploy")
def serve() -> None:
    """Champion and methods on TorchServe, their answers compared with torch's."""
    with deploy.server() as runtime:
        deploy.put(runtime)
        answer, cosine = deploy.check(runtime)
    print(f"\nthe endpoint answers {answer}\nsmallest cosine to torch over every endpoint: {cosine:.6f}")


def slug(name: str) -> str:
    """A name as Prefect takes it for an artifact: small letters, digits and dashes."""
    return "".join(ch if ch.isascii() and ch.isalnum() else "-" for ch in name.lower()).strip("-") or "dataset"


def adopt(folder: Path, recipe: str) -> None:
    """Make a folder of images the data set: copied into data/raw under DVC, params.yaml from the recipe.

    What is there already stays: the copy, and a params.yaml that names the data set, edited or not.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-.") or "images"
    if not folder.is_dir():
        raise StageError(f"{folder} is not a folder")
    text = re.sub(r"^dataset: \S+", f'dataset: "{name}"', read_recipe(recipe), flags=re.MULTILINE)
    target = stage.RAW / name
    if target.exists():
        print(f"{target} is used as it is; to copy {folder} again, remove it and {target}.dvc first")
    else:
        command = [sys.executable, "-m", "dvc", "add", "--out", str(target), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StageError(f"{folder} could not be added to DVC: {done.stderr.strip()}")
    if not re.search(rf'^dataset: "?{re.escape(name)}"?( |$)', config.PARAMS.read_text(), re.MULTILINE):
        write_params(text, f"the recipe {recipe} for {name}")


def read_recipe(word: str) -> str:
    """The text of recipes/<word>.yaml. Raises StageError with the words that there are."""
    known = sorted(path.stem for path in Path("recipes").glob("*.yaml"))
    if word not in known:
        raise StageError(f"{word} is not a recipe; there are: {', '.join(known)}")
    return Path("recipes", f"{word}.yaml").read_text()


def write_params(text: str, what: str) -> None:
    """params.yaml anew, the one before kept; nothing where it is the same."""
    before, kept = config.PARAMS.read_text(), stage.SCRATCH / "params.before.yaml"
    if text != before:
        kept.write_text(before)
        config.PARAMS.write_text(text)
        print(f"params.yaml is now {what}; the one before is in {kept}")


def stop(number: int, _frame: object) -> None:
    """End with all that we started, at once: Prefect would wait for a server that the same Ctrl-C has ended."""
    print("\nstopped; the same command goes on from here", file=sys.stderr, flush=True)
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.terminate()  # a training saves a checkpoint first
    os._exit(128 + number)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.flow", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="a folder of images; without it, what params.yaml names")
    parser.add_argument(
        "--recipe", metavar="WORD", help="a file of recipes/, for its data set or FOLDER (then: photos)"
    )
    given = parser.parse_args()
    started = time.monotonic()
    stage.SCRATCH.mkdir(exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        if given.folder:
            adopt(given.folder, given.recipe or "photos")
        elif given.recipe:
            write_params(read_recipe(given.recipe), f"the recipe {given.recipe}")
        c = config.load()
        nodes = graph.read()
        if "prepare" not in {n.name for n in nodes if n.unchanged}:
            known = {n.name for n in nodes}
            if not (stage.RAW / c.dataset).exists() and f"download@{c.dataset}" not in known:
                raise StageError(f"{stage.RAW / c.dataset} is not here; name a folder: python -m pipelines.flow FOLDER")
        tracking.connect()  # once, before several stages do
    except (ConfigError, StageError) as error:
        sys.exit(str(error))
    state = pipeline(nodes, return_state=True)
    if not state.is_completed():
        sys.exit(f"\n{state.message}")
    print(f"\n{report.ending()}")
    print(f"\n{time.monotonic() - started:.0f} s in all. To serve it: make serve, then\n  {deploy.curl(c.dataset)}")


if __name__ == "__main__":
    main()
