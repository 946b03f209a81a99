"""`python -m benchmarks.speed.gpu --smoke`: run every branch that only a GPU takes once; name the first that fails.

It takes a few minutes on noise: run it first on a new machine. With --tiny it runs on a CPU, to check this file.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import loop
from models import start
from models.baselines.supervised import SupervisedParams
from models.encoders.vit import ViTParams
from models.evaluation import probe
from models.method import Baseline
from models.optim import OptimParams
from models.views.augmentation import ViewParams
from pipelines.engine.loop import Training
from pipelines.engine.prefetch import Inputs, generator
from pipelines.machine import footprint, gpus, hardware
from pipelines.project.config import PretrainParams
from pipelines.project.stage import StageError

COLOURS = (0.5,) * 3, (0.25,) * 3
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


@dataclass(frozen=True)
class Machine:
    work: Path
    device: torch.device
    tiny: bool

    @property
    def noise(self) -> Path:
        loop.synthetic(folder := self.work / "smoke-noise", *((64, 16) if self.tiny else (1024, 32)))
        return folder

    def project(self, method: str, changes: dict[str, Any]) -> Path:
        """A folder in which a short training run can work."""
        folder = self.work / f"smoke-{method}-{time.monotonic_ns()}"
        few = {f"{method}.batch_size": 32, f"{method}.epochs": 2, "pretrain.log_every": 1}
        loop.project(folder, "digits" if self.tiny else "cifar10-small", few | changes, self.noise)
        return folder


def lock(m: Machine) -> str:
    """A GPU is locked by its UUID."""
    with gpus.device() as device:
        return str(device if device.type == "cpu" else gpus.lock_of(device.index or 0))


def training(method: str, resident: bool, changes: dict[str, Any], m: Machine) -> str:
    """The real loop: feed, events, health checks, checkpoints; resident: the images lie on the GPU."""
    folder = m.project(method, changes | ({"pretrain.compile": False} if m.tiny else {}))
    loop.train(folder, method, threads=int(m.tiny), resident=resident)
    return f"{loop.figures(folder, method)['images/s']:,.0f} images/s"


def ranks(processes: int, changes: dict[str, Any], m: Machine) -> str:
    """torchrun's ranks, by NCCL on a GPU."""
    if m.device.type == "cuda" and torch.cuda.device_count() < processes:
        return f"left out: it needs {processes} GPUs"
    command = [sys.executable, *TORCHRUN, str(processes), "-m", "pipelines.pretrain", "mae"]
    folder = m.project("mae", {"pretrain.compile": False} | changes)
    done = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": "."}, capture_output=True, check=False)
    if done.returncode:
        raise StageError(done.stderr.decode(errors="replace")[-2000:])
    return "trained"


def labels(m: Machine) -> str:
    """Training with labels of a ViT whose blocks are recomputed; its memory is within the estimate."""
    size, n = (16, 8) if m.tiny else (224, 64)
    params = SupervisedParams(n, OptimParams("sgd", 0.1, 1e-4), ViewParams(area=(0.5, 1.0)), recompute=True)
    vit = ViTParams("vit_nano" if m.tiny else "vit_small", 8 if m.tiny else 16)

    def build() -> Baseline:
        return start.baseline("supervised", vit.build(size, *COLOURS), params, size, 10, 0)

    with torch.device("meta"):
        shadow = build()
    estimate = footprint.needed(shadow, params, size, n, bf16=True)
    how, method = PretrainParams(compile=False), build()
    setting = replace(hardware.choose(how, method, params, size, 1, m.device), compiled=False)
    trained = Training(method, params, how, setting, m.device)
    images = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, device=m.device)
    draws = [d.to(m.device) for d in method.draw(n, size, size, generator(0, 0))]
    draws[-1] = torch.arange(n, device=m.device) % 10
    for _ in range(2):
        loss = trained.step(Inputs(images, draws), 0.5)[1].item()
    took = torch.cuda.max_memory_allocated(m.device) if m.device.type == "cuda" else 0
    if took > estimate:
        raise StageError(f"A step took {took / 1e9:.2f} GB, but {estimate / 1e9:.2f} GB were estimated.")
    return f"loss {loss:.3f}, {took / 1e9:.2f} GB of {estimate / 1e9:.2f} GB estimated"


def features(m: Machine) -> str:
    """Frozen features in TF32 from pinned memory are those of the CPU."""
    encoder = ViTParams("vit_nano", 4).build(16, *COLOURS)
    x = torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected, found = (probe.extract(encoder, [x], device) for device in (torch.device("cpu"), m.device))
    off = float(abs(found - expected).max() / abs(expected).max())
    if off > 5e-3:
        raise StageError(f"The features differ by {off:.1e} from those of the CPU.")
    return f"{off:.1e} off the CPU's"


def memory(m: Machine) -> str:
    """Running out of memory gives a sentence."""
    params = SupervisedParams(8, OptimParams("sgd", 0.1, 1e-4), ViewParams(area=(0.5, 1.0)))
    try:
        with footprint.explained("supervised", params):
            torch.empty(2**45, device=m.device)
    except StageError as error:
        return str(error)
    raise StageError("The GPU allocated 32 TB, which must fail.")


FP32 = {"pretrain.precision": "fp32", "pretrain.compile": False}
CHECKS: dict[str, Callable[[Machine], str]] = {
    "lock": lock,
    "features": features,
    "out of memory": memory,
    "labels": labels,
    "SimCLR, eager, a checkpoint a step": partial(
        training, "simclr", True, {"pretrain.compile": False, "pretrain.checkpoint_minutes": 0.0}
    ),
    "SimCLR, compiled, images sent": partial(training, "simclr", False, {"pretrain.compile": True}),
    "MAE, compiled": partial(training, "mae", True, {"pretrain.compile": True}),
    "DINO, fp32": partial(training, "dino", True, FP32),
    "one rank": partial(ranks, 1, {}),
    "two ranks": partial(ranks, 2, {}),
    "two ranks, sharded": partial(ranks, 2, {"pretrain.sharded": True}),
}


def run(work: Path, device: torch.device, tiny: bool) -> None:
    """Run all checks, with one line per check; exit with 1 at the first that fails."""
    machine = Machine(work, device, tiny)
    for name, check in CHECKS.items():
        begin = time.monotonic()
        try:
            outcome = check(machine)
        except BaseException as error:
            print(f"{name}: FAILED after {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
            if isinstance(error, StageError):
                sys.exit(str(error))
            raise
        print(f"{name}: {outcome} ({time.monotonic() - begin:.0f} s)", flush=True)
