"""The cells of studies as a Prefect flow: one task run per cell. What is finished is DVC's to know."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pipelines.orchestration.prefect_settings  # noqa: F401 isort: skip - before Prefect, which reads them at import
from prefect import State, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from pipelines.machine import cores
from pipelines.orchestration import stop
from pipelines.orchestration.display import Display
from pipelines.orchestration.prefect_flow import ended, faults
from pipelines.orchestration.slots import Slots
from pipelines.orchestration.stage_process import StageProcess

STOPPED = "The other runs were not started, because the study was stopped."


@dataclass(frozen=True)
class Job:
    """Stages of the project in a folder, and the jobs that must be done before."""

    name: str
    folder: Path
    targets: tuple[str, ...]
    upstream: tuple[str, ...] = ()


class Run:
    """One run of jobs: how they are shown, where they run, and the folders of those that are done."""

    def __init__(self, jobs: Sequence[Job], shown: Display, processes: StageProcess) -> None:
        self.done: set[Path] = set()
        self.jobs, self.shown, self.processes = jobs, shown, processes
        self.slots = Slots(cores.side_by_side(), {job.name: job.upstream for job in jobs})
        self.slots.ranks = {job.name: float(len(jobs) - place) for place, job in enumerate(jobs)}


@task(cache_policy=NO_CACHE)
def run_job(run: Run, job: Job) -> State[Any]:
    """One job through DVC. Fails with the sentence that the stage itself printed."""
    with run.slots.hold(job.name):
        if stop.STOPPING.is_set():
            return Failed(message=STOPPED)
        run.shown.start(job.name)
        fault, _ = run.processes.repro_all(job.name, job.targets, job.folder, get_run_logger().info)
        if not fault:
            run.done.add(job.folder)
            run.slots.finish(job.name)
    run.shown.end(job.name, ended(fault, False))
    return Failed(message=fault) if fault else Completed()


@flow(name="encoder-foundry-study", validate_parameters=False, task_runner=ThreadPoolTaskRunner())  # type: ignore[arg-type]
def studies(run: Run) -> State[Any]:
    """Every job as soon as those before it are done; a failure stops only what depends on it."""
    with stop.stages_first():
        return run_all(run)


def run_all(run: Run) -> State[Any]:
    """Submit every job, and wait for all of them."""
    futures: dict[str, PrefectFuture[Any]] = {}
    for job in run.jobs:
        named = run_job.with_options(task_run_name=job.name)
        futures[job.name] = named.submit(run, job, wait_for=[futures[name] for name in job.upstream])  # type: ignore[call-overload]
    failed = faults(futures)
    return Failed(message="\n".join(dict.fromkeys(failed))) if failed else Completed()
