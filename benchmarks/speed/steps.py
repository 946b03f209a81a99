"""`python -m benchmarks.speed.steps`: training steps per second, and the gain by each measure of the engine.

The steps are those of the loop (`loop.Training`), on images that are in memory already. The variants of one method take
turns in one process; the first is plain torch: fp32, contiguous, nothing compiled.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.speed import timing
from models import start
from models.method import Method, MethodParams
from pipelines.engine.loop import Training
from pipelines.engine.prefetch import Inputs, generator
from pipelines.machine import gpus, hardware
from pipelines.machine.flops import flops
from pipelines.project import config
from pipelines.project.config import PretrainParams
from serving.host.command import Parser

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A method to train, on images of `size` px."""

    name: str
    method: str
    params: MethodParams
    size: int


@dataclass(frozen=True)
class Variant:
    name: str
    precision: str = "fp32"
    layout: torch.memory_format = torch.contiguous_format
    compiled: bool = False


def cases() -> list[Case]:
    """The recipes for a CPU, and SimCLR's published ResNet-18 on CIFAR-10, for which there is a target."""
    found = []
    for path in (Path("params.yaml"), Path("recipes/cifar10-small.yaml"), Path("recipes/photos.yaml")):
        c = config.load(path)
        word = "digits" if path.stem == "params" else path.stem
        found += [Case(f"{word} {name}", name, c.method(name), c.prepare.size) for name in c.methods]
    published = config.load(Path("recipes/cifar10.yaml"))
    found.append(Case("cifar10 mae", "mae", replace(published.method("mae"), batch_size=128), 32))
    return [Case("cifar10 simclr", "simclr", replace(published.method("simclr"), batch_size=128), 32), *found]


def variants(method: Method, device: torch.device) -> list[Variant]:
    """Plain torch, then one measure more each time; bf16 only where the hardware multiplies it natively."""
    found = [Variant("plain torch")]
    layout = method.encoder.LAYOUT
    if layout == torch.channels_last:
        found.append(Variant("channels-last", layout=layout))
    found.append(Variant("compiled", layout=layout, compiled=True))
    if device.type == "cuda" or hardware.cpu_bf16():
        found.append(Variant("bf16", "bf16", layout))
        found.append(Variant("bf16, compiled", "bf16", layout, True))
    return found


def measure(case: Case, device: torch.device, rounds: int, compiled: bool, peaks: dict[str, float]) -> list[Row]:
    """One row per variant: images/s, ratio to plain torch, first step in s, FLOPs per image, % of the peak."""
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = 64  # two compiled variants share the code that is compiled
    p = case.params
    probe = start.method(case.method, p, case.size, (0.5,) * 3, (0.25,) * 3, 0)
    per_image = flops(probe, case.size)
    images = torch.randint(0, 256, (p.batch_size, 3, case.size, case.size), dtype=torch.uint8)
    draws = probe.draw(p.batch_size, case.size, case.size, generator(0, 0))
    inputs = Inputs(images.to(device), [d.to(device) for d in draws])
    chosen = {v.name: v for v in variants(probe, device) if compiled or not v.compiled}
    work = {name: stepper(case, v, inputs, device) for name, v in chosen.items()}
    first = {name: timed(step, device) for name, step in work.items()}
    middle = timing.in_turn(work, device, rounds)
    plain = middle["plain torch"]
    return [
        {
            "case": case.name,
            "variant": name,
            "batch": p.batch_size,
            "images/s": p.batch_size / spent,
            "to plain": plain / spent,
            "first step, s": first[name],
            "GFLOP an image": per_image / 1e9,
            "utilisation, %": 100 * per_image * p.batch_size / spent / peaks[chosen[name].precision],
        }
        for name, spent in middle.items()
    ]


def stepper(case: Case, v: Variant, inputs: Inputs, device: torch.device) -> Callable[[], object]:
    """Each call is a step of its own training run."""
    how = PretrainParams(precision=v.precision, compile=v.compiled)  # type: ignore[arg-type]
    method = start.method(case.method, case.params, case.size, (0.5,) * 3, (0.25,) * 3, 0)
    setting = replace(hardware.choose(how, method, case.params, case.size, 1000, device), layout=v.layout)
    training = Training(method, case.params, how, setting, device)
    method.train()

    def step() -> object:
        hardware.allow_tf32(setting)  # the last variant that was built has set it for all
        return training.step(inputs, 0.5)

    return step


def timed(step: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds, including the compiler's processes."""
    begin = perf_counter()
    timing.seconds(step, device)
    return perf_counter() - begin


def run(chosen: Iterable[Case], device: torch.device, rounds: int, compiled: bool) -> Row:
    peaks = {name: timing.peak(dtype, device) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    rows: list[Row] = []
    for case in chosen:
        rows += measure(case, device, rounds, compiled, peaks)
        print(f"{case.name}: {rows[-1]['images/s']:,.0f} images/s", file=sys.stderr, flush=True)
    return {"peaks, GFLOP/s": {name: value / 1e9 for name, value in peaks.items()}, "rows": rows}


def main() -> None:
    parser = Parser(prog="python -m benchmarks.speed.steps", description=__doc__)
    parser.add_argument("words", nargs="*", help="run only the cases whose names contain all of these words")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--rounds", type=int, default=timing.ROUNDS)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--batch", type=int, help="images per step (default: as in the recipe)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    chosen = [case for case in cases() if all(word in case.name for word in given.words)]
    if given.batch:
        chosen = [replace(case, params=replace(case.params, batch_size=given.batch)) for case in chosen]
    with gpus.device() as device:
        found = run(chosen, device, given.rounds, not given.eager)
        print(timing.machine(device), found["peaks, GFLOP/s"], sep="\n")
    for row in found["rows"]:
        print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
