"""`make soak`: train at small size for half an hour, and check that memory stays flat.

The three methods run in parallel, one thread each, and save every few seconds. Resident memory is read from the kernel
every two seconds. After the warm-up (a fifth of the time) a straight line is fitted by least squares. Memory is flat
when this line grows by no more than 1 % of the memory after the warm-up, over the fitted time.
"""

import json
import platform
import signal
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks.workspace import configure, start, workspace
from models.methods import METHODS
from pipelines.project.stage import TRY_AGAIN
from pipelines.reporting.tables import text
from serving.host.command import Parser

EVERY = 2.0  # s
WARM_UP = 0.2
FLAT = 0.01
PROGRAM = """
from pipelines import pretrain
from pipelines.project import stage
stage.run(f"pretrain@{sys.argv[1]}", lambda: pretrain.main(sys.argv[1]))
"""


def main() -> None:
    parser = Parser(prog="python -m benchmarks.endurance.soak", description=__doc__)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--minutes", type=float, default=30, help="to train (default: 30)")
    parser.add_argument("--compile", action="store_true", help="compile the training step (default: eager)")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path(".scratch/soak.json"),
        help="the file for the figures (default: .scratch/soak.json)",
    )
    given = parser.parse_args()
    with workspace() as folder:
        endless = {f"{name}.epochs": 10**6 for name in given.methods}
        configure(folder, {"pretrain.checkpoint_minutes": 0.1, "pretrain.compile": given.compile} | endless)
        samples = soak(folder, given.methods, 60 * given.minutes)
        steps = {name: last_step(folder, name) for name in given.methods}
    found = {name: figures(np.array(samples[name])) | {"steps": steps[name]} for name in given.methods}
    rows = [
        {"method": name} | {k: f"{v:,.{0 if k == 'steps' else 1}f}" for k, v in f.items()} | {"flat": verdict(f)}
        for name, f in found.items()
    ]
    print(
        f"\n{given.minutes:g} minutes, torch {torch.__version__}; flat: a fitted growth of at most {FLAT:.0%}\n"
        f"\n{text(rows)}"
    )
    given.json.parent.mkdir(parents=True, exist_ok=True)
    written = {"minutes": given.minutes, "machine": platform.processor() or platform.machine(), "flat_below": FLAT}
    given.json.write_text(json.dumps(written | {"methods": found, "samples": samples}, indent=1) + "\n")
    sys.exit(any(verdict(f) != "yes" for f in found.values()))


def soak(folder: Path, methods: list[str], seconds: float) -> dict[str, list[tuple[float, float]]]:
    """Resident KiB of each training run and its children at times in s since the start. Ends them with SIGTERM."""
    processes = {name: psutil.Process(start(folder, PROGRAM, name, log=folder / f"{name}.log").pid) for name in methods}
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    begin = time.monotonic()
    while (now := time.monotonic() - begin) < seconds:
        for name, process in processes.items():
            family = [process, *process.children(recursive=True)]
            samples[name].append((now, sum(p.memory_info().rss for p in family) / 1024))
        time.sleep(EVERY)
    for name, process in processes.items():
        process.send_signal(signal.SIGTERM)
        if process.wait() != TRY_AGAIN:
            sys.exit(
                f"The training run of {name} did not stop with a checkpoint. Its log ends with:\n"
                + (folder / f"{name}.log").read_text()[-2000:]
            )
    return samples


def last_step(folder: Path, name: str) -> int:
    history = folder / ".scratch" / "pretrain" / name / "history.jsonl"
    if not history.exists():
        sys.exit(f"The training run of {name} wrote no row. Give it more --minutes.")
    return int(json.loads(history.read_text().splitlines()[-1])["step"])


def figures(samples: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> dict[str, float]:
    """Of (n, 2) times in s and KiB: MiB after the warm-up and at the end, and the line through the rest."""
    warm = samples[samples[:, 0] >= WARM_UP * samples[-1, 0]]
    minutes, kib = warm[:, 0] / 60, warm[:, 1]
    (slope, _), covariance = np.polyfit(minutes, kib, 1, cov=True)
    return {
        "MiB after warm-up": kib[0] / 1024,
        "MiB at the end": kib[-1] / 1024,
        "KiB per minute": float(slope),
        "± (standard error)": float(covariance[0, 0] ** 0.5),
        "growth %": float(100 * slope * (minutes[-1] - minutes[0]) / kib[0]),
    }


def verdict(figures: dict[str, float]) -> str:
    return "yes" if figures["growth %"] <= 100 * FLAT else "NO"


if __name__ == "__main__":
    main()
