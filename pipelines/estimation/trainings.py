"""All training runs of a configuration, and how much of it there is: counted, nothing is computed."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from models import start
from models.encoders.encoder import EncoderParams
from models.method import Method, MethodParams
from models.methods import BASELINES, BaselineParams
from pipelines.engine import monitor
from pipelines.evaluation.supervised import runs, trials
from pipelines.evaluation.supervised.training import Labelled, Trial
from pipelines.machine import flops, footprint
from pipelines.project.config import Config
from pipelines.project.supervision import LabelSamples, batch_of

SMALL = 64  # px; the encoders of such images are built faster than counted on the meta device
COLOURS = (0.5,) * 3, (0.25,) * 3  # mean and standard deviation of the pixels; they change no cost


@dataclass(frozen=True)
class Work:
    """A kind of training: its stage, the params section of its numbers, whose scores it gives, and how to build it."""

    stage: str
    section: str
    who: str
    build: Callable[[], Method]
    params: MethodParams | BaselineParams
    processes: int  # that share its batch
    backbone: EncoderParams

    @property
    def batch(self) -> int:
        """Images of a step, in all processes together."""
        return sum(batch_of(self.params))

    @property
    def group(self) -> int:
        """Images that a part of a step must be a multiple of: a labelled one and the unlabelled ones beside it."""
        n, more = batch_of(self.params)
        return 1 + more // n

    @property
    def at_once(self) -> int:
        """Images that a process has in memory in one part of a step."""
        return footprint.at_once(self.params, self.processes)

    def flops(self, size: int) -> float:
        """Operations of a step for each image of the batch."""
        with torch.device("meta"):
            method = self.build()
        images = -(-flops.COUNTED // self.group) * self.group
        return flops.flops(method, size, images=images)

    def bytes(self, size: int, bf16: bool) -> float:
        """Memory of a process at the most, counted."""
        with torch.device("meta"):
            method = self.build()
        return footprint.needed(method, self.params, size, self.at_once, bf16)


@dataclass(frozen=True)
class Amount:
    """How much of a kind of training there is."""

    trainings: int
    steps: int  # of all of them
    judged: int  # images that go forward through the backbone besides: health checks, accuracies

    def images(self, work: Work) -> float:
        """Images of all steps; an image that only goes forward counts for a third."""
        return self.steps * work.batch + self.judged / 3


def trainings(c: Config, classes: int, labelled: bool) -> Iterator[Work]:
    """All that a configuration trains: every method, and where there are labels its fine-tuning and the baselines."""
    for name in c.methods:
        build = partial(start.method, name, c.method(name), c.prepare.size, *COLOURS, 0)
        yield Work(f"pretrain@{name}", name, name, build, c.method(name), c.pretrain.processes, backbone(name, c))
    if not labelled:
        return
    for name in c.methods:
        tuned = [("finetune", who, baseline, params) for who, baseline, params in trials.ways(name, c)]
        # With all labels there is nothing to label.
        some = tuned if c.finetune.shots else [way for way in tuned if way[2] == "supervised"]
        own = [(baseline, f"{baseline}-{name}", baseline, c.of_baseline(baseline)) for baseline in BASELINES]
        scratch = own if name in trials.backbones(c) else []
        for section, who, baseline, params in [*some, *scratch]:
            stage = f"finetune@{name}" if section == "finetune" else f"baseline@{baseline}"
            made = partial(over, baseline, name, c, params, classes)
            yield Work(stage, section, who, made, params, c.pretrain.processes, backbone(name, c))


def backbone(name: str, c: Config) -> EncoderParams:
    """The encoder of a method, wherever its weights are from."""
    return replace(c.method(name).encoder, init=None)


def over(baseline: str, name: str, c: Config, params: BaselineParams, classes: int) -> Method:
    """A baseline over the encoder of this method."""
    encoder = c.method(name).encoder.build(c.prepare.size, *COLOURS)
    return start.baseline(baseline, encoder, params, c.prepare.size, classes, 0)


def amounts(c: Config, data: Labelled) -> dict[tuple[str, str], Amount]:
    """(stage, who) → how much of it there is with these images, c fitted to them. No entry: none of it."""
    found = {}
    for name in c.methods:
        params = c.method(name)
        steps = params.epochs * (len(data.train) // params.batch_size)
        checks = 1 + steps // monitor.interval(c.pretrain.watch, len(data.train) // params.batch_size, steps)
        seen = checks * min(monitor.IMAGES, len(data.prepared.rows("val")))
        found[f"pretrain@{name}", name] = Amount(c.seeds, c.seeds * steps, c.seeds * 2 * seen)
    if not (c.labelled_trainings and data.enough):
        return found
    with torch.device("meta" if data.size > SMALL else "cpu"):
        for name in c.methods:
            encoder = c.method(name).encoder.build(c.prepare.size, *COLOURS)
            encoders = {c.seed + k: encoder for k in range(c.seeds)}
            found |= counted(
                f"finetune@{name}", trials.fine_tunings(name, c, encoders, encoder), c.finetune, c.seed, data
            )
        for baseline in BASELINES:
            found |= counted(f"baseline@{baseline}", trials.from_scratch(baseline, c, data), c.baseline, c.seed, data)
    return found


def counted(
    stage: str, wanted: Iterable[Trial], of: LabelSamples, seed: int, data: Labelled
) -> dict[tuple[str, str], Amount]:
    """The same of the training runs of a stage with labels."""
    steps: Mapping[str, list[int]] = defaultdict(list)
    for trial, *_ in runs.plan(data, list(wanted), of, seed):
        steps[trial.who].append(trial.steps)
    judged = len(data.rows["val"]) + len(data.rows["test"])
    return {(stage, who): Amount(len(own), sum(own), len(own) * judged) for who, own in steps.items()}
