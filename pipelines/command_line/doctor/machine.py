"""Disk and memory."""

import shutil
import tempfile
from pathlib import Path

import psutil

from pipelines.command_line.doctor.finding import Finding, fault, ok, warning
from pipelines.command_line.screen import size

GB = 10**9
DISK = (
    1 * GB,
    5 * GB,
)  # fault below the first, warning below the second; the demo writes 0.1 GB, a data set of photographs more
MEMORY = 1 * GB, 4 * GB  # the demo's recipe asks for 4 GB


def disk() -> Finding:
    """Is there space for a run, here and where temporary files go?"""
    places = {str(place): shutil.disk_usage(place).free for place in (Path.cwd(), Path(tempfile.gettempdir()))}
    where, free = min(places.items(), key=lambda each: each[1])
    if free >= DISK[1]:
        return ok(f"{size(free)} free in {where}")
    said = f"{where} has {size(free)} free. A run needs at least {size(DISK[0])}."
    cure = "Free some space there. foundry clean removes generated files; foundry status shows what takes how much."
    return fault(said, cure) if free < DISK[0] else warning(said, cure)


def memory() -> Finding:
    """Is there memory for the smallest recipe?"""
    here = psutil.virtual_memory()
    if here.available >= MEMORY[1]:
        return ok(f"{size(here.available)} of {size(here.total)} free")
    said = f"{size(here.available)} of {size(here.total)} are free. The demo needs up to {size(MEMORY[1])}."
    cure = "Close other programs, or use a machine with more memory."
    return fault(said, cure) if here.available < MEMORY[0] else warning(said, cure)
