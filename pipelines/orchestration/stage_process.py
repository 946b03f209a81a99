"""One stage in a process of its own: what it prints goes to the display, to its log file and to Prefect's page."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from data import progress
from pipelines.machine import cores
from pipelines.orchestration.display import Display
from pipelines.orchestration.warm.python import WarmPython
from pipelines.project import stage

LOGS = stage.SCRATCH / "logs"
UP_TO_DATE = "didn't change, skipping"
DVC = ("pipelines.orchestration.dvc_process", "--wait-for-lock", "repro")
LOGGED_EVERY_S = 30.0  # a progress line, in Prefect's page
CHATTER = (
    *("Running stage", "> ", "Updating lock file", "Generating lock file", "ERROR: failed to reproduce"),
    "WARNING: Process '",  # DVC's sentence for a lock that a stopped flow has left
    *("To track the changes", "To enable auto staging", "Use `dvc push`", "\tgit add", "\tdvc config"),
    *("Stage '", "Data and pipelines are up to date", "'data/raw/"),
)


def environment() -> dict[str, str]:
    """Of every stage: its share of the cores, this interpreter as `python`, and the project's modules in any folder."""
    threads = str(cores.threads())
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH")))),
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "PYTHONUNBUFFERED": "1",
        "PROGRESS_LINE_EVERY_S": "2",
        "DVC_NO_ANALYTICS": "1",
        stage.FLOW: str(os.getpid()),
    }


class StageProcess:
    """Runs stages in forks of a warm Python."""

    def __init__(self, python: WarmPython, display: Display) -> None:
        self._python, self._display = python, display

    def repro(self, name: str, address: str, log: Callable[[str], None]) -> tuple[str | None, bool]:
        """Run DVC for this stage alone: why it failed, if it did, and whether DVC found nothing to do.

        log: gets each line that is not DVC's own.
        """
        return self.run(name, *DVC, "--single-item", address, log=log)

    def repro_all(
        self, name: str, targets: Sequence[str], folder: Path, log: Callable[[str], None]
    ) -> tuple[str | None, bool]:
        """Run DVC for stages of the project in this folder, and for what they depend on."""
        return self.run(name, *DVC, *targets, log=log, folder=folder)

    def run(
        self, name: str, *command: str, log: Callable[[str], None], folder: Path | None = None
    ) -> tuple[str | None, bool]:
        """Run a module in the way of a stage. Its last line on stdout is its key figure; those on stderr are notes."""
        LOGS.mkdir(parents=True, exist_ok=True)
        child = self._python.start(*command, folder=folder)
        lines, faults, skipped, logged = list[str](), list[str](), False, 0.0
        with (LOGS / f"{name}.log").open("w", encoding="utf-8") as file:
            for is_error, line in child.lines():
                print(line, file=file, flush=True)
                skipped = skipped or UP_TO_DATE in line
                if not line.strip() or line.startswith(CHATTER):
                    continue
                shown = line.rstrip().removeprefix(f"{name}: ").removeprefix(f"{name} ")
                if reading := progress.read(line):
                    self._display.progress(name, reading)
                    if (now := time.monotonic()) - logged >= LOGGED_EVERY_S:
                        logged = now
                        log(shown)
                    continue
                log(shown)
                lines.append(line.rstrip())
                if line.startswith((f"{name}: ", "error: ")):
                    faults.append(line.rstrip())
                elif is_error:
                    self._display.note(name, shown)
                else:
                    self._display.figure(name, shown)
        if not child.wait():
            for fault in faults:
                self._display.note(name, fault.removeprefix(f"{name}: "))
            return None, skipped
        return faults[-1] if faults else f"{name}: " + " / ".join(lines[-3:]), skipped
