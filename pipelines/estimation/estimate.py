"""What a whole run takes on this machine: time, memory and disk, for `plan`, the flow's board and its last lines."""

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from statistics import mean

import torch

from pipelines.estimation import disk, graph, probes, schedule, stages, trainings
from pipelines.estimation.disk import Disk
from pipelines.estimation.durations import sized, spoken
from pipelines.estimation.probes import Cost
from pipelines.estimation.trainings import Amount, Work
from pipelines.evaluation.supervised.training import Labelled
from pipelines.machine import cores
from pipelines.project import stage
from pipelines.project.config import Config

KINDS = {"pretrain": "pretraining", "finetune": "fine-tuning", "baseline": "baselines"}
LABELLED = ("finetune", "baseline")  # kinds of stage that `labelled_trainings: false` empties
WORTH = 0.7  # of the time: only if leaving them out saves more than the rest, it is offered
QUIET = 0.75  # of a processor that a training run gets, at least, where nothing else runs


@dataclass(frozen=True)
class Estimate:
    """seconds: from `made` (Unix time) to the end of the run; stages: how long each takes beside the others.

    parts: the seconds shared out by kind of stage; without_labels: seconds if `labelled_trainings` were false.
    """

    seconds: float
    stages: dict[str, float]
    memory_bytes: float
    disk: Disk
    made: float
    parts: dict[str, float]
    without_labels: float
    gpu_memory_bytes: float = 0.0
    busy: bool = False  # other programs want the processors, too

    def write(self) -> None:
        """Keep it for the flow."""
        stage.ESTIMATE.parent.mkdir(exist_ok=True)
        content = asdict(self) | {"disk_bytes": self.disk.run}
        stage.ESTIMATE.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def said(self, can_skip: bool) -> str:
        """One or two lines. can_skip: whether the run would still say which encoder is best without fine-tuning."""
        parts = {KINDS[kind]: self.parts[kind] for kind in KINDS if kind in self.parts}
        parts["the rest"] = self.seconds - sum(parts.values())
        named = [f"{part} {spoken(seconds)}" for part, seconds in parts.items()]
        gpu = f", {sized(self.gpu_memory_bytes)} of GPU memory" if self.gpu_memory_bytes else ""
        machine = "this machine, as busy as it is now" if self.busy else "this machine"
        lines = [
            f"This run will take about {spoken(self.seconds)} on {machine} ({', '.join(named)}), "
            f"{sized(self.memory_bytes)} of memory{gpu} and {sized(self.disk.run)} of disk."
        ]
        if can_skip and self.without_labels < WORTH * self.seconds:
            lines.append(
                f"Without fine-tuning and baselines it will take about {spoken(self.without_labels)}: "
                "set labelled_trainings to false in params.yaml."
            )
        return "\n".join(lines)


def measure(
    c: Config, data: Labelled, names: Collection[str]
) -> tuple[dict[Work, Cost], dict[tuple[str, str], Amount]]:
    """What the training runs of these stages cost, and how many there are; also those whose encoders they read."""
    every = trainings.trainings(c, len(data.prepared.classes), c.labelled_trainings and data.enough)
    works = [work for work in every if {work.stage, work.stage.replace("pretrain@", "probe@")} & set(names)]
    return probes.costs(works, data), trainings.amounts(c, data)


def estimate(
    c: Config,
    data: Labelled,
    names: Collection[str],
    costs: Mapping[Work, Cost],
    amounts: Mapping[tuple[str, str], Amount],
) -> Estimate:
    """Of a run of these stages."""
    every, slower = graph.read(c), stages.slowness()
    loads = stages.loads(c, list(names), data, costs, amounts, slower)
    share = mean(cost.share for cost in costs.values()) if costs and cores.threads() == 1 else 1.0
    pace, side = machine(share, c.pretrain.processes), cores.side_by_side()
    spans = schedule.schedule({name: load.seconds for name, load in loads.items()}, every, side, pace)
    around = stages.AROUND * slower
    total = schedule.total(spans) + around
    short = {name: load.seconds for name, load in loads.items() if not name.startswith(LABELLED)}
    short |= {name: stages.bare(name, slower) for name in loads if name.startswith(LABELLED)}
    kinds = [kind for kind in KINDS if any(stage.startswith(kind) for stage, _ in amounts)]
    steps = {stage: amount.steps for (stage, _), amount in amounts.items()}
    gpu = torch.cuda.is_available()
    return Estimate(
        seconds=total,
        stages={name: span.seconds for name, span in spans.items()},
        memory_bytes=stages.CONDUCTORS + schedule.highest(spans, {name: load.memory for name, load in loads.items()}),
        disk=disk.disk(c, [work for work in costs if work.stage in names], steps, data.prepared, side),
        made=time.time(),
        parts=schedule.apportioned({name: load.seconds for name, load in loads.items()}, total, kinds),
        without_labels=schedule.total(schedule.schedule(short, every, side, pace)) + around,
        gpu_memory_bytes=max((cost.memory for cost in costs.values()), default=0.0) if gpu else 0.0,
        busy=share < QUIET,
    )


def machine(share: float, processes: int) -> schedule.Pace:
    """How stages share this machine's GPUs and processors. share: of a processor that a probe got beside the others."""
    processors = cores.count() / cores.threads()
    if torch.cuda.is_available():
        return schedule.on_gpus(torch.cuda.device_count() / processes, [f"{kind}@" for kind in KINDS], processors)
    others = max(0.0, processors / share - probes.side())
    return schedule.sharing(processors / processes, others if share < QUIET else 0.0)
