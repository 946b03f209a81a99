"""How long a recipe takes, and the memory and disk that it needs: `python -m pipelines.estimate [RECIPE]`.

On this machine a few steps of each training run are measured. For other machines the operations are counted and divided
by the speed of their GPUs. Ends with 1 where a training run does not fit the memory.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from data.shards import Prepared
from models.methods import BASELINES, BaselineParams
from pipelines.estimation import accelerators, disk, graph, imagined, stages, trainings
from pipelines.estimation.accelerators import GPU, UTILISATION
from pipelines.estimation.durations import sized, spoken
from pipelines.estimation.estimate import estimate, measure
from pipelines.estimation.trainings import Work
from pipelines.evaluation.supervised import runs
from pipelines.evaluation.supervised.training import Labelled
from pipelines.machine import cores, footprint, gpus
from pipelines.machine.footprint import GB
from pipelines.project import config, recipes, stage
from pipelines.project.config import Config
from pipelines.project.parse import refused
from pipelines.project.stage import StageError
from serving.host.command import Parser

LEAST = 0.01  # s of a step on a GPU, however little it computes: its kernels must be started
OTHERS = 3  # GPUs for which the whole is said besides


@dataclass(frozen=True)
class Row:
    """A kind of training run: its seconds, and the bytes that a process takes."""

    work: Work
    seconds: float
    memory: float


@dataclass(frozen=True)
class Found:
    """All that is printed: the machine, its memory for each process, the training runs, the sum, and its source."""

    machine: str
    has: float
    rows: list[Row]
    seconds: float
    disk: disk.Disk
    notes: list[str]


@dataclass(frozen=True)
class Asked:
    """What the command line says: a recipe (without it, params.yaml) and a machine.

    gpus: how many; gpu: their name; teraflops: the peak of each; utilisation: the share of it that is reached.
    """

    recipe: str | None = None
    gpus: int | None = None
    gpu: str | None = None
    teraflops: float | None = None
    utilisation: float | None = None
    images: int | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether a machine is described that is not this one."""
        return any((self.gpu, self.teraflops, self.utilisation))


def main(asked: Asked) -> None:
    if asked.gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    path = Path("recipes", f"{asked.recipe}.yaml") if asked.recipe else config.PARAMS
    text = recipes.read(asked.recipe) if asked.recipe else ""
    given = config.load(path)
    stated = imagined.machine(text or path.read_text(encoding="utf-8"))
    prepared, known = imagined.prepared(given, asked.images)
    model = chosen(asked, stated)
    many = asked.gpus if asked.gpus is not None else gpus_of(stated, asked)
    c = given.fitted(train := len(prepared.rows("train")))
    c = replace(c, pretrain=replace(c.pretrain, processes=max(1, many)))
    for name in c.methods:
        config.check_batch(name, c.method(name), train, c.pretrain.processes)
    with_labels: dict[str, BaselineParams] = {name: c.of_baseline(name) for name in BASELINES}
    for section, params in {"finetune": c.finetune, **with_labels}.items():
        runs.check(section, params, c)
    here = not asked.elsewhere and many <= torch.cuda.device_count()
    share = asked.utilisation or UTILISATION
    found = measured(c, prepared) if here else counted(c, prepared, model, many, share)
    images = f"{prepared.manifest.images:,} images ({known}) at {c.prepare.size} px"
    print(f"{asked.recipe or path}: {images}, on {found.machine}\n")
    fits = table(found)
    print(f"\n{whole(found)}")
    for note in found.notes:
        print(note)
    if not fits:
        sys.exit(1)


def gpus_of(stated: imagined.Machine | None, asked: Asked) -> int:
    """How many GPUs where nobody says it: those of the recipe's machine; 0 is this machine's CPU."""
    if stated and stated.gpus:
        return stated.gpus
    return 1 if asked.elsewhere else 0


def chosen(asked: Asked, stated: imagined.Machine | None) -> GPU:
    """The GPU that is meant; one of the given peak has the memory that the recipe states. Raises StageError."""
    known = accelerators.named(asked.gpu) if asked.gpu else accelerators.DEFAULT
    if known is None:
        names = ", ".join(each.name for each in accelerators.KNOWN)
        raise StageError(
            f"The GPU {asked.gpu} is not known. Allowed: {names}. For another GPU, give its peak: --teraflops 200."
        )
    if asked.teraflops is None:
        return known
    memory = stated.memory if stated and stated.gpus and not asked.gpu else known.memory
    return GPU(asked.gpu or f"GPU of {asked.teraflops:g} TFLOP/s", asked.teraflops, memory)


def measured(c: Config, prepared: Prepared) -> Found:
    """On this machine, by a few steps."""
    torch.set_num_threads(1)  # or the processes that are forked to measure would wait for threads that they lack
    with gpus.device() as device:
        data = Labelled(prepared, c.pretrain, device)
        names = [*graph.read(c)]
        costs, amounts = measure(c, data, names)
        of = estimate(c, data, names, costs, amounts)
        rows = [
            Row(work, amounts[key].images(work) * cost.image / work.processes, cost.memory)
            for work, cost in costs.items()
            if (key := (work.stage, work.who)) in amounts
        ]
        gpu = device.type == "cuda"
        has = torch.cuda.get_device_properties(device).total_memory if gpu else footprint.installed()
        name = torch.cuda.get_device_name(device) if gpu else f"this machine's {cores.count()} CPU cores"
    side = cores.side_by_side()
    notes = [
        f"Measured: a few steps of each training run, not compiled; the seconds are those of one stage alone. "
        f"The flow runs {side} stages at the same time, which needs about {sized(of.memory_bytes)} of memory.",
        "Assumed: the time to start, register, export and check, as on the digits. The download is left out.",
        *["Other programs use the processors now. Without them it is faster."] * of.busy,
    ]
    return Found(name, has, rows, of.seconds + stages.slowness() * stages.FIXED["plan"], of.disk, notes)


def counted(c: Config, prepared: Prepared, gpu: GPU, many: int, share: float) -> Found:
    """On GPUs that are not here, by the operations of every step."""
    data = Labelled(prepared, c.pretrain, torch.device("cpu"))
    amounts = trainings.amounts(c, data)
    every = trainings.trainings(c, len(prepared.classes), c.labelled_trainings and data.enough)
    works = [work for work in every if (work.stage, work.who) in amounts]
    speed = many * gpu.teraflops * 1e12 * share
    operations = {work: work.flops(data.size) * amounts[work.stage, work.who].images(work) for work in works}
    bf16 = c.pretrain.precision in ("auto", "bf16")
    rows = [
        Row(work, max(of / speed, amounts[work.stage, work.who].steps * LEAST), work.bytes(data.size, bf16))
        for work, of in operations.items()
    ]
    total = sum(row.seconds for row in rows)
    others = [each for each in accelerators.KNOWN if each.name != gpu.name][:OTHERS]
    elsewhere = ", ".join(f"{many} × {x.name} {spoken(total * gpu.teraflops / x.teraflops)}" for x in others)
    steps = {stage: amount.steps for (stage, _), amount in amounts.items()}
    kind = "bf16" if bf16 else f"bf16, though the recipe asks for {c.pretrain.precision}"
    notes = [
        f"Counted: {sum(operations.values()):.2g} operations, forward and backward, and the memory of a step.",
        f"Assumed: {100 * share:.0f} % of the peak of {gpu.teraflops:g} TFLOP/s per GPU (dense {kind}), at least "
        f"{1000 * LEAST:.0f} ms per step. "
        f"That is optimistic: published runs reached {accelerators.PUBLISHED}, and slow disks reach less.",
        f"Also at {100 * share:.0f} %: {elsewhere}. Probes and exports are left out.",
    ]
    found = disk.disk(c, works, steps, prepared, side=1)
    return Found(f"{many} × {gpu.name} ({gpu.memory} GB)", gpu.memory * GB, rows, total, found, notes)


def table(found: Found) -> bool:
    """Print a line for each training run; whether all fit."""
    fits = True
    print(f"{'':30} {'time':>9} {'memory':>9}   processes × images")
    for row in found.rows:
        work = row.work
        name = f"{work.who}, fine-tuned" if work.section == "finetune" else work.who
        print(
            f"{name:30} {spoken(row.seconds):>9} {row.memory / GB:6.1f} GB   {work.processes} × {work.at_once}",
            flush=True,
        )
        if row.memory > found.has:
            fits = False
            remedy = footprint.remedy(work.section, work.params, work.processes)
            print(f"{'':30} That is too much for {found.has / GB:.0f} GB. {remedy}")
    return fits


def whole(found: Found) -> str:
    """The time of all, and the disk."""
    kept, unfinished = sized(found.disk.artifacts), sized(found.disk.checkpoints)
    return (
        f"In all about {spoken(found.seconds)}. Disk: {sized(found.disk.prepared)} for the prepared images and DVC's "
        f"copy of them, {kept} for encoders and results, and up to {unfinished} for checkpoints while it trains."
    )


def count(text: str) -> int:
    """A whole number that is not negative, commas allowed."""
    number = int(text.replace(",", ""))
    if number < 0:
        raise ValueError
    return number


def arguments(given: Sequence[str] | None = None) -> Asked:
    """What the command line says. Ends the process with one sentence where it makes no sense."""
    parser = Parser(prog="python -m pipelines.estimate", description=__doc__)
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE", help="such as imagenet-vit-base; without it, params.yaml"
    )
    parser.add_argument("--gpus", type=count, help="how many; 0: this machine's CPU; without it, as the recipe says")
    parser.add_argument("--gpu", metavar="NAME", help=", ".join(each.name for each in accelerators.KNOWN))
    parser.add_argument("--teraflops", type=float, help="the dense bf16 peak of each GPU, for one that is not known")
    parser.add_argument("--utilisation", type=float, help=f"share of the peak that is reached (default {UTILISATION})")
    parser.add_argument("--images", type=count, metavar="N", help="how many, where the data set is not here")
    asked = Asked(**vars(parser.parse_args(given)))
    if asked.gpus == 0 and asked.elsewhere:
        parser.error("With --gpus 0 this machine's CPU is measured. Leave out --gpu, --teraflops and --utilisation.")
    if asked.teraflops is not None and not asked.teraflops > 0:
        parser.error(str(refused("--teraflops", f"{asked.teraflops:g}", "above 0")))
    if asked.utilisation is not None and not 0 < asked.utilisation <= 1:
        parser.error(str(refused("--utilisation", f"{asked.utilisation:g}", "above 0, at most 1")))
    return asked


if __name__ == "__main__":
    wanted = arguments()
    stage.run("estimate", lambda: main(wanted), alone=False)
