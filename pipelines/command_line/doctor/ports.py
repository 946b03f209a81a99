"""The ports of the endpoint, of MLflow's page and of Prefect's: free, or taken by whom?"""

import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from pipelines.command_line.doctor.finding import Finding, fault, ok, warning
from serving.host.runtime import settings
from serving.torchserve.ports import GRPC, HTTP

CONFIG = Path("serving/config.properties")
PAGES = (5000, 4200)  # MLflow and Prefect, as pipelines/orchestration/ui.py opens them
OURS = ("serving.server", "pipelines.orchestration.ui")  # modules that open these ports


def endpoint(config: Path = CONFIG) -> Finding:
    """Are the ports free that `foundry serve` opens?"""
    given = settings(config.read_text(encoding="utf-8"))
    numbers = [urlsplit(given[key]).port or 443 for key in HTTP] + [int(given[f"grpc_{key}_port"]) for key in GRPC]
    others, own = taken(numbers)
    if others:
        return fault(
            f"foundry serve cannot start: {listed(others)}.",
            f"Stop that process, or change the port in {config}.",
        )
    return ok(f"the endpoint runs on port {numbers[0]}" if own else f"ports {said(numbers)} are free")


def pages(numbers: Sequence[int] = PAGES) -> Finding:
    """Are the ports free that `foundry ui` opens? Nothing else needs them."""
    others, own = taken(numbers)
    if others:
        return warning(f"foundry ui cannot start: {listed(others)}.", "Stop that process before you run foundry ui.")
    return ok(f"foundry ui is running on ports {said(numbers)}" if own else f"ports {said(numbers)} are free")


def taken(numbers: Sequence[int]) -> tuple[dict[int, str], bool]:
    """Port → who listens there, of strangers; and whether this project's own servers have one of them."""
    others: dict[int, str] = {}
    own = False
    for number in numbers:
        try:
            socket.create_server(("127.0.0.1", number)).close()
        except OSError:
            process = listener(number)
            if process is not None and is_ours(process):
                own = True
            else:
                others[number] = named(process)
    return others, own


def listener(port: int) -> psutil.Process | None:
    """The process that listens on this port; None where the system does not tell."""
    try:
        for connection in psutil.net_connections("tcp"):
            heard = connection.laddr.port if connection.laddr else None
            if connection.status == psutil.CONN_LISTEN and heard == port and connection.pid:
                return psutil.Process(connection.pid)
    except psutil.Error:
        pass
    return None


def is_ours(process: psutil.Process) -> bool:
    """Whether one of the project's commands started it."""
    try:
        return any(module in each.cmdline() for each in (process, *process.parents()) for module in OURS)
    except psutil.Error:
        return False


def named(process: psutil.Process | None) -> str:
    """The process for people."""
    if process is None:
        return "another user's process"
    try:
        return f"process {process.pid} ({process.name()})"
    except psutil.Error:
        return f"process {process.pid}"


def said(numbers: Sequence[int]) -> str:
    """The ports for people."""
    return ", ".join(map(str, numbers))


def listed(others: dict[int, str]) -> str:
    """Each taken port with who has it."""
    return "; ".join(f"port {number} is taken by {who}" for number, who in others.items())
