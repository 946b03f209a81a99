"""Seconds and memory of each stage alone: its training runs by their probes, all else by a table that was measured."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pipelines.estimation.probes import Cost
from pipelines.estimation.trainings import COLOURS, Amount, Work
from pipelines.evaluation import features, probe_protocol
from pipelines.evaluation.scores import JUDGED
from pipelines.evaluation.supervised.training import Labelled
from pipelines.project.config import Config

# CPU seconds of a stage on the digits, all of its process, where `counting` takes REFERENCE of them.
REFERENCE = 0.0104
DVC = 0.3  # of the process that runs a stage, a fork of one that has imported DVC
FIXED = {
    **{"settings": 0.5, "download": 0.8, "prepare": 1.0, "plan": 4.0, "pretrain": 2.5, "finetune": 1.0},
    **{"baseline": 1.0, "probe": 1.5, "register": 2.5, "export": 7.5, "archive": 0.8, "promote": 2.5, "report": 7.0},
}
AROUND = 15.0  # of the flow itself, Prefect's server, and the endpoint that is checked at the end
PREPARED = 4000.0  # images per second and processor, decoded and resized
# Seconds of a probe's readings of one encoder: of few labels, per image, feature and class, and per feature squared.
READ = 1.5, 8e-8, 4e-6
COPIES = 8  # of the features, in a probe's memory
MEMORY = {"export": 0.7e9, "promote": 0.6e9, "report": 0.6e9, "register": 0.45e9}
BESIDE = {"pretrain": 0.2e9}  # bytes of the process of a training run, beside its probe's: MLflow, health checks
HOST = 2e9  # bytes of the machine's memory that a process with a GPU takes
OTHER, CONDUCTORS = 0.3e9, 1.2e9  # bytes of another stage; of the flow, Prefect's server and a DVC for each slot


@dataclass(frozen=True)
class Load:
    """What a stage needs."""

    seconds: float
    memory: float


def slowness() -> float:
    """How much slower than the table's this machine runs Python, which imports what a stage needs."""
    return min(counting() for _ in range(5)) / REFERENCE


def counting() -> float:
    """CPU seconds of a small, fixed piece of work."""
    began = time.process_time()
    sum(i * i for i in range(200_000))
    return time.process_time() - began


def loads(
    c: Config,
    names: list[str],
    data: Labelled,
    costs: Mapping[Work, Cost],
    amounts: Mapping[tuple[str, str], Amount],
    slower: float,
) -> dict[str, Load]:
    """Each of these stages. slower: `slowness`."""
    found = {}
    for name in names:
        kind, _, item = name.partition("@")
        seconds, memory = bare(name, slower), MEMORY.get(kind, OTHER)
        for work, cost in costs.items():
            if work.stage == name and (amount := amounts.get((name, work.who))):
                seconds += amount.images(work) * cost.image / work.processes + amount.trainings * cost.setup
                own = HOST if data.device.type == "cuda" else cost.memory + BESIDE.get(kind, 0.1e9)
                memory = max(memory, work.processes * own)
        if kind == "probe":
            of = next(cost for work, cost in costs.items() if work.stage == f"pretrain@{item}")
            seconds += probing(c, item, data, of, slower)
            memory += COPIES * 4 * data.prepared.manifest.images * max(dims(c, item, data))
        if kind == "prepare":
            seconds += data.prepared.manifest.images / PREPARED * slower
        found[name] = Load(seconds, memory)
    return found


def bare(name: str, slower: float) -> float:
    """Seconds of a stage that has nothing to train and no features to read."""
    return slower * (FIXED.get(name.partition("@")[0], 0.0) + DVC)


def probing(c: Config, method: str, data: Labelled, of: Cost, slower: float) -> float:
    """Seconds in which the probe of a method reads its encoders, random ones, and, the first of all, the pixels."""
    splits = {split: len(data.prepared.rows(split)) for split in probe_protocol.SPLITS}
    compared = sum(min(splits[split], probe_protocol.COMPARED) for split in JUDGED)
    seen = sum(splits.values()) + features.VIEWS * compared
    labels = len(data.rows["train"]) * len(data.prepared.classes) if data.enough else 0
    read = sum(READ[0] + READ[1] * labels * dim + READ[2] * dim**2 for dim in dims(c, method, data)) if labels else 0.0
    return 2 * c.seeds * seen * of.forward + slower * read


def dims(c: Config, method: str, data: Labelled) -> list[int]:
    """Features of all that the probe of a method reads."""
    with torch.device("meta"):
        encoder = c.method(method).encoder.build(c.prepare.size, *COLOURS)
    pixels = [3 * min(data.size, features.PIXELS) ** 2] if method == c.methods[0] else []
    return [*2 * c.seeds * [encoder.dim], *pixels]
