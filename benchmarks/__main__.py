"""`make bench`: measure the speed of the engine, beside plain torch, other libraries and the hardware's peak.

Parts: steps (training steps), loop (whole training runs: input wait, memory), masking (what MAE saves), views (beside
other libraries), prepare. One thread; the contenders of a part take turns. Tables are printed, figures written as JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import markdown
from benchmarks.speed import loop, masking, steps, timing
from pipelines.machine import gpus
from serving.host.command import Parser

PEERS = Path(".scratch/peers/bin/python")  # lightly, kornia and torchvision, which `make bench` installs
LOOPS = (("digits", "simclr", 16), ("cifar10-small", "simclr", 32), ("cifar10-small", "mae", 32),
         ("cifar10-small", "dino", 32), ("photos", "simclr", 64))  # fmt: skip


def loops() -> list[dict[str, Any]]:
    """Short training runs with the real loop, on noise: batch, speed, input wait and memory."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for recipe, method, size in LOOPS:
            folder, noise = Path(scratch, f"{recipe}-{method}"), Path(scratch, f"noise-{size}")
            loop.synthetic(noise, 2048, size)
            loop.project(folder, recipe, {f"{method}.epochs": 3, "pretrain.log_every": 4}, noise)
            loop.train(folder, method, threads=1)
            found = loop.figures(folder, method)
            shown = ("batch", "images/s", "input wait, %", "memory, GB")
            rows.append({"recipe": recipe, "method": method} | {key: found[key] for key in shown})
    return rows


def others(module: str, *arguments: str, python: str | Path = sys.executable) -> str:
    """The output of another benchmark, in a process of its own."""
    done = subprocess.run([python, "-m", module, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else f"{module} does not run here: {done.stderr[-500:]}"


def main() -> None:
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help="parts to run (default: all)")
    parser.add_argument("--rounds", type=int, default=timing.ROUNDS, help="runs of each contender; the median counts")
    parser.add_argument("--quick", action="store_true", help="compile nothing, and skip what takes minutes")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path(".scratch/bench.json"),
        help="the file for the figures (default: .scratch/bench.json)",
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    figures: dict[str, Any] = {"torch": torch.__version__}

    def stepped(device: torch.device) -> list[dict[str, Any]]:
        found = steps.run(steps.cases(), device, given.rounds, not given.quick)
        print("peaks measured, GFLOP/s: " + ", ".join(f"{k} {v:,.0f}" for k, v in found["peaks, GFLOP/s"].items()))
        figures["peaks, GFLOP/s"] = found["peaks, GFLOP/s"]
        rows: list[dict[str, Any]] = found["rows"]
        return rows

    parts: dict[str, Callable[[torch.device], Any]] = {
        "steps": stepped,
        "loop": lambda device: loops(),
        "masking": lambda device: masking.run(device, given.rounds, not given.quick),
        "views": lambda device: others("benchmarks.speed.views", python=PEERS),
        "prepare": lambda device: others("benchmarks.speed.prepare", "1000" if given.quick else "10000"),
    }
    if unknown := set(given.parts) - set(parts):
        parser.error(f"There is no part {', '.join(unknown)}. Allowed: {', '.join(parts)}.")
    for name in given.parts or parts:
        # `loop` trains in processes of its own, which take the device themselves.
        with gpus.device() as device:
            figures["machine"] = timing.machine(device)
        print(f"\n{name}: {figures['machine']}, torch {torch.__version__}, medians of {given.rounds}\n", flush=True)
        if name == "views" and not PEERS.exists():
            print(f"The other libraries are missing; `make bench` installs them into {PEERS.parents[1]}.")
            continue
        figures[name] = parts[name](device)
        print(figures[name] if isinstance(figures[name], str) else markdown(figures[name]), flush=True)
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
