"""The server that records a flow's runs: one that PREFECT_API_URL names, or Prefect's own while the flow runs.

A flow that was killed leaves its server running, and its runs Running. The next flow ends both.
"""

import sys
from contextlib import suppress

import psutil

import pipelines.orchestration.prefect_settings  # noqa: F401 isort: skip - before Prefect, which reads them at import
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS
from prefect.states import Crashed

from pipelines.orchestration import stop
from pipelines.project import stage
from pipelines.project.stage import StageError

PID = stage.SCRATCH / "prefect-server.pid"
OURS = "prefect.server.api.server:create_app"  # in the command line of Prefect's own server
KILLED: State[None] = Crashed(message="its process was killed")
GOING = [StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED]


def start() -> None:
    """Have a server that answers. Raises StageError.

    One flow runs at a time in a project, so that whatever is Running in its own records at this moment is dead.
    """
    if named := PREFECT_API_URL.value():
        with get_client(sync_client=True) as client:
            if error := client.api_healthcheck():
                raise StageError(
                    f"Prefect's server does not answer: PREFECT_API_URL is {named} ({type(error).__name__}). Start it, "
                    "correct the address, or unset it."
                )
        return
    end_left_behind()
    server = SubprocessASGIServer()
    with stop.deaf_children():
        server.start(PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())
    assert server.server_process is not None
    PID.write_text(str(server.server_process.pid), encoding="utf-8")
    close_dead_runs()


def end_left_behind() -> None:
    """End the server of a flow that was killed."""
    with suppress(OSError, ValueError, psutil.Error):
        process = psutil.Process(int(PID.read_text(encoding="utf-8")))
        if OURS in process.cmdline():
            process.terminate()
            process.wait(10)
            print("Ended the Prefect server that a killed flow had left.", file=sys.stderr)


def close_dead_runs() -> None:
    """Say of every flow run that has not ended, and of its tasks, that it crashed."""
    flows = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=GOING)))
    tasks = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=GOING)))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=flows):
            of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
            for task in client.read_task_runs(flow_run_filter=of_run, task_run_filter=tasks):
                client.set_task_run_state(task.id, KILLED, force=True)
            client.set_flow_run_state(run.id, KILLED, force=True)
