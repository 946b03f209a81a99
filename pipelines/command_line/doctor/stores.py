"""What DVC, MLflow and Prefect keep: can it be read, and does a server answer that is named?"""

import json
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from pipelines.command_line.doctor.finding import Finding, fault, ok, warning

CACHE, RECORD = Path(".dvc/cache"), Path(".dvc/tmp/rwlock")
PREFECT = Path(".prefect/prefect.db")
SECONDS = 3.0  # that a server has to answer
PORTS = {"https": 443, "http": 80, "postgresql": 5432, "mysql": 3306}


def dvc() -> Finding:
    """Can DVC's cache be read, and did a DVC that was killed leave its lock behind?"""
    if CACHE.exists() and not os.access(CACHE, os.R_OK | os.W_OK | os.X_OK):
        return fault(f"{CACHE.resolve()} cannot be read and written.", f"Run: chmod -R u+rwX {CACHE}")
    try:
        record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    except ValueError:
        return warning(f"A DVC that was killed left half of {RECORD}.", "The next foundry run repairs it.")
    holders = {pid for entry in record.values() for pid in pids(entry)}
    if dead := sorted(pid for pid in holders if not psutil.pid_exists(pid)):
        return warning(f"Process {dead[0]} ended and left its lock in {RECORD}.", "The next foundry run removes it.")
    if holders:
        return ok(f"in use by process {', '.join(map(str, sorted(holders)))}")
    return ok(f"the cache {CACHE} can be read" if CACHE.exists() else "nothing in the cache yet")


def pids(entry: object) -> set[int]:
    """The processes that DVC's record of readers and writers names, however deep."""
    if isinstance(entry, dict):
        own = {entry["pid"]} if isinstance(entry.get("pid"), int) else set()
        return own.union(*map(pids, entry.values()))
    return set().union(*map(pids, entry)) if isinstance(entry, list) else set()


def mlflow() -> Finding:
    """Does MLflow's store answer?"""
    from pipelines.project.stage import StageError  # noqa: PLC0415 - slow
    from pipelines.registry import mlflow_store  # noqa: PLC0415

    try:
        address = mlflow_store.address()
    except StageError as error:
        return fault(str(error), "Unset MLFLOW_TRACKING_URI to use mlflow.db in the project's folder.")
    if address.startswith(mlflow_store.SQLITE):
        return database(Path(address.removeprefix(mlflow_store.SQLITE)), "experiments")
    said = mlflow_store.masked(address)
    if not urlsplit(address).hostname:
        return ok(f"{said} (foundry run will try it)")
    if reason := silent(address, "/health"):
        return fault(
            f"MLflow's server does not answer: MLFLOW_TRACKING_URI is {said} ({reason}).",
            "Start the server, correct the address, or unset MLFLOW_TRACKING_URI to use mlflow.db here.",
        )
    return ok(f"{said} answers")


def prefect() -> Finding:
    """Does the server answer that PREFECT_API_URL names, or else can Prefect's own database be read?"""
    address = os.environ.get("PREFECT_API_URL", "")
    if not address:
        return database(PREFECT, "flow_run")
    if reason := silent(address, "/health"):
        return fault(
            f"Prefect's server does not answer: PREFECT_API_URL is {address} ({reason}).",
            "Start the server, correct the address, or unset PREFECT_API_URL to use the flow's own server.",
        )
    return ok(f"{address} answers")


def database(file: Path, table: str) -> Finding:
    """Can this SQLite file be read?"""
    if not file.exists():
        return ok(f"no {file.name} yet; the first run makes it")
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=SECONDS)) as store:
            count = store.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    except sqlite3.Error as error:
        return fault(
            f"{file} cannot be read: {error}.",
            f"Restore it from a backup, or move it away: mv {file} {file}.broken. The next run makes a new one.",
        )
    if not os.access(file, os.W_OK):
        return fault(f"{file} cannot be written.", f"Run: chmod u+w {file}")
    return ok(f"{file.name} can be read ({table.replace('_', ' ').removesuffix('s')}s: {count})")


def silent(address: str, path: str) -> str:
    """Why a server does not answer within seconds; empty when it does. A database is only asked for its port."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        port = parts.port or PORTS.get(parts.scheme.partition("+")[0], 0)
        try:
            socket.create_connection((parts.hostname or "", port), timeout=SECONDS).close()
        except OSError as error:
            return error.strerror or str(error)
        return ""
    import requests  # noqa: PLC0415 - slow

    from serving.host import loopback  # noqa: PLC0415

    try:
        answer = loopback.request("GET", f"{address.rstrip('/')}{path}", timeout=SECONDS)
    except requests.Timeout:
        return f"no answer within {SECONDS:g} s"
    except requests.ConnectionError:
        return "no connection"
    except requests.RequestException as error:
        return type(error).__name__
    return "" if answer.ok else f"it answers with status {answer.status_code}"
