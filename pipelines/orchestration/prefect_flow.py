"""The pipeline as a Prefect flow: one task run per stage. The graph and its cache are DVC's.

Prefect decides when each stage runs, and keeps the record of it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pipelines.orchestration.prefect_settings  # noqa: F401 isort: skip - before Prefect, which reads them at import
from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from pipelines.estimation.schedule import remaining
from pipelines.machine import cores
from pipelines.orchestration import display, stop
from pipelines.orchestration.dvc_graph import Node
from pipelines.orchestration.slots import Slots
from pipelines.orchestration.stage_process import LOGS, StageProcess
from pipelines.project import config, stage
from pipelines.release import endpoint
from pipelines.reporting import results, tables

TRAINS = ("pretrain@", "finetune@", "baseline@")
PLAN, DEPLOY = "plan", "deploy"


class Run:
    """One run of the graph: the stages, how they are shown, and which of those that could run is next."""

    def __init__(self, nodes: Sequence[Node], shown: display.Display, processes: StageProcess) -> None:
        self.nodes, self.shown, self.processes = nodes, shown, processes
        names = {node.address: node.name for node in nodes}
        self.upstream = {node.name: [names[address] for address in node.upstream] for node in nodes}
        self.trainings = [node.name for node in nodes if node.name.startswith(TRAINS) and not node.unchanged]
        for name in self.trainings:
            self.upstream[name].append(PLAN)
        self.slots = Slots(cores.side_by_side(), self.upstream)
        self.estimate({node.name: 0.0 if node.unchanged else 1.0 for node in nodes})

    def estimate(self, seconds: Mapping[str, float]) -> None:
        """The seconds that each stage takes: the longest chain of stages starts first."""
        self.slots.ranks = remaining(seconds, self.upstream)
        self.shown.expect(seconds)


@task(cache_policy=NO_CACHE)
def run_stage(run: Run, node: Node) -> State[Any]:
    """One stage through DVC. Fails with the sentence that the stage itself printed."""
    if node.unchanged:
        run.slots.finish(node.name)
        run.shown.end(node.name, display.State.UNCHANGED)
        return Completed(name="Unchanged", message="Nothing that it depends on has changed.")
    with run.slots.hold(node.name):
        if stop.STOPPING.is_set():
            return Failed(message=f"{node.name}: It was not started, because the flow was stopped.")
        run.shown.start(node.name)
        fault, skipped = run.processes.repro(node.name, node.address, get_run_logger().info)
        if not fault:
            run.slots.finish(node.name)
    if fault:
        run.shown.figure(node.name, fault.removeprefix(f"{node.name}: "))
    run.shown.end(node.name, ended(fault, skipped))
    if fault:
        return Failed(message=fault)
    return Completed(name="Unchanged") if skipped else Completed()


@task(task_run_name=PLAN, cache_policy=NO_CACHE)
def plan(run: Run) -> State[Any]:
    """Before anything trains: is all of it possible, and how long does it take? Fails with the plan's own sentence."""
    stage.ESTIMATE.unlink(missing_ok=True)
    run.shown.start(PLAN)
    fault, _ = run.processes.run(PLAN, "pipelines.plan", *run.trainings, log=get_run_logger().info)
    refused = bool(fault) and str(fault).startswith(f"{PLAN}: ")
    if refused:
        run.shown.figure(PLAN, str(fault).removeprefix(f"{PLAN}: "))
    run.shown.end(PLAN, ended(fault if refused else None, False))
    if refused:
        return Failed(message=fault)
    if stage.ESTIMATE.exists():
        seconds = json.loads(stage.ESTIMATE.read_text(encoding="utf-8"))["stages"]
        run.estimate({node.name: 0.0 if node.unchanged else seconds.get(node.name, 1.0) for node in run.nodes})
    run.slots.finish(PLAN)
    return Completed()


@task(task_run_name=DEPLOY, cache_policy=NO_CACHE)
def deploy(run: Run) -> State[Any]:
    """Champion and methods on TorchServe, their answers compared with torch's."""
    run.shown.start(DEPLOY)
    try:
        run.shown.figure(DEPLOY, endpoint.verified(LOGS / f"{DEPLOY}.log"))
    except Exception as error:
        run.shown.figure(DEPLOY, str(error))
        run.shown.end(DEPLOY, display.State.FAILED)
        raise
    run.shown.end(DEPLOY, display.State.DONE)
    return Completed()


@flow(name="encoder-foundry", validate_parameters=False, task_runner=ThreadPoolTaskRunner())  # type: ignore[arg-type]
def pipeline(run: Run) -> State[Any]:
    """Every stage as soon as its upstream is done; a failure stops only what depends on it."""
    with stop.stages_first():
        return run_all(run)


def run_all(run: Run) -> State[Any]:
    """Submit every stage, deploy what is promoted, and wait for all of them."""
    futures: dict[str, PrefectFuture[Any]] = {}
    for node in run.nodes:
        upstream = [futures[name] for name in run.upstream[node.name]]
        named = run_stage.with_options(task_run_name=node.name)
        futures[node.name] = named.submit(run, node, wait_for=upstream)  # type: ignore[call-overload]
        if node.name == "prepare" and run.trainings:
            futures[PLAN] = plan.submit(run, wait_for=[futures[node.name]])  # type: ignore[call-overload]
    futures[DEPLOY] = deploy.submit(run, wait_for=[futures["promote"]])  # type: ignore[call-overload]
    if failed := faults(futures):
        return Failed(message="\n".join(failed))
    dataset = config.load().dataset
    create_table_artifact(tables.accuracies(results.read()), key=f"{slug(dataset)}-results", description=dataset)
    return Completed()


def faults(futures: Mapping[str, PrefectFuture[Any]]) -> list[str]:
    """Wait for all of them. What failed, a sentence each."""
    found = []
    for name, future in futures.items():
        future.wait()
        if future.state.is_failed() or future.state.is_crashed():
            found.append(future.state.message or f"{name}: It failed.")
    return found


def ended(fault: str | None, skipped: bool) -> display.State:
    if fault:
        return display.State.STOPPED if stop.STOPPING.is_set() else display.State.FAILED
    return display.State.UNCHANGED if skipped else display.State.DONE


def slug(name: str) -> str:
    """A name as Prefect takes it for an artifact: small letters, digits and dashes."""
    return "".join(ch if ch.isascii() and ch.isalnum() else "-" for ch in name.lower()).strip("-") or "dataset"
