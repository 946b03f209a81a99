"""One training run with labels: from a given encoder and labelled images to predictions of val and test."""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data.shards import Prepared
from models import parallel, start
from models.baselines.supervised import predict
from models.encoders.encoder import Encoder
from models.method import Baseline
from models.methods import BaselineParams
from pipelines.engine.loop import Training
from pipelines.engine.prefetch import Feed, Inputs, generator
from pipelines.evaluation.scores import JUDGED, Predictions, Split
from pipelines.machine import flops, hardware
from pipelines.machine.hardware import Setting
from pipelines.project.config import PretrainParams
from pipelines.project.stage import StageError
from pipelines.project.supervision import batch_of

BATCH = 256  # of predictions
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """What it predicts, the seconds of the training run, and the images that went through its backbone."""

    said: Mapping[Split, Predictions]
    seconds: float
    images: int


@dataclass(frozen=True)
class Trial:
    """A start, and a way to train from it with labels."""

    who: str  # of the scores
    baseline: str  # which of methods.BASELINES
    params: BaselineParams
    encoder: Encoder  # of which every training run gets a copy
    seed: int  # of the encoder
    steps: int

    def uses(self, unlabelled: int) -> bool:
        """Whether it has something of its own to do with so many train images beside the labelled ones."""
        return unlabelled > 0 or batch_of(self.params)[1] == 0


class Labelled:
    """The labelled images of a prepared folder, and how this machine trains on them."""

    def __init__(self, prepared: Prepared, how: PretrainParams, device: torch.device):
        self.prepared, self.device = prepared, device
        # Most are short, each of a network of its own: compiled only where one is long enough to pay for it.
        self.how = replace(how, compile="auto" if how.compile else False, sharded=False)
        self.size = prepared.manifest.preprocess.size
        self.train = prepared.rows("train")
        self.settings: dict[tuple[str, int], Setting] = {}  # of a trial's kind and its steps: counting FLOPs takes time
        self.rows: dict[str, Numbers] = {}
        self.y: dict[str, Numbers] = {}
        for split in ("train", "val", "test"):
            labels = prepared.labels(rows := prepared.rows(split))
            self.rows[split], self.y[split] = rows[labels >= 0], labels[labels >= 0]

    @property
    def enough(self) -> bool:
        """Whether there is something to learn and to judge: two classes in each split."""
        return all(len(np.unique(y)) > 1 for y in self.y.values())

    def baseline(self, name: str, encoder: Encoder, params: BaselineParams, seed: int) -> Baseline:
        """A baseline over this encoder, with a head of as many classes as there are."""
        return start.baseline(name, encoder, params, self.size, len(self.prepared.classes), seed)

    def images_a_step(self, name: str, encoder: Encoder, params: BaselineParams) -> int:
        """That go through the backbone."""
        n, more = batch_of(params)
        return round(n * flops.views(self.baseline(name, encoder, params, 0), 1 + more // n, self.size))

    def fit(self, trial: Trial, labelled: Numbers, seed: int, advance: Callable[[int], None]) -> Outcome:
        """Train on these labelled rows, and on all train images as unlabelled ones; then judge, once, as it is.

        advance: gets after each step how many images went through the backbone. All chance is a function of
        (seed, step). Raises StageError where the loss is not finite at the end.
        """
        started = time.monotonic()
        params, steps = trial.params, trial.steps
        baseline = self.baseline(trial.baseline, copy.deepcopy(trial.encoder), params, seed)
        images = self.images_a_step(trial.baseline, trial.encoder, params)
        if (kind := (trial.who, steps)) not in self.settings:
            self.settings[kind] = hardware.choose(self.how, baseline, params, self.size, steps, self.device)
        setting = self.settings[kind]
        training = Training(baseline, params, self.how, setting, self.device)
        baseline.train()
        loss = torch.zeros(())
        if setting.compiled:
            torch._dynamo.reset()  # it compiles one piece of code for so many networks only
        feed = Feed(partial(self.inputs, baseline, params, labelled, seed), self.device)
        for step, inputs in enumerate(feed.steps(0, steps)):
            _, loss, _ = training.step(inputs, step / steps)
            advance(images)
        if not loss.isfinite():
            raise StageError(
                f"Training diverged: the loss of {trial.who} is {loss.item()} at the end. "
                f"Lower its optim.lr in params.yaml (now {params.optim.lr})."
            )
        said = {split: Predictions(self.predictions(baseline, split), self.y[split]) for split in JUDGED}
        return Outcome(said, time.monotonic() - started, steps * images)

    def inputs(self, baseline: Baseline, params: BaselineParams, labelled: Numbers, seed: int, step: int) -> Inputs:
        """Of this rank, on the CPU: labelled images first, then unlabelled ones; the last draws are their labels."""
        n, more = batch_of(params)
        known = labelled[places(len(labelled), step * n, n, seed)]
        others = self.train[places(len(self.train), step * more, more, seed + 1)]
        *draws, y = baseline.draw(n + more, self.size, self.size, generator(seed, step))
        y[:n] = torch.from_numpy(self.prepared.labels(known))
        own = np.concatenate([part(np.arange(n)), n + part(np.arange(more))])
        images = torch.from_numpy(self.prepared.images(np.concatenate([known, others])[own]))
        return Inputs(images, [d[torch.from_numpy(own)] for d in (*draws, y)])

    def predictions(self, baseline: nn.Module, split: str) -> Numbers:
        """Of every image, every rank at its part of them."""
        rows = self.rows[split]
        found = torch.zeros(len(rows), dtype=torch.int64, device=self.device)
        for chunk in np.array_split(own := part(np.arange(len(rows))), -(-len(own) // BATCH) or 1):
            images = torch.from_numpy(self.prepared.images(rows[chunk])).to(self.device)
            with torch.compiler.set_stance("force_eager"):  # other shapes would compile it once more
                found[torch.from_numpy(chunk)] = predict(baseline, images)
        every: Numbers = parallel.total(found).cpu().numpy()
        return every


def part(x: Numbers) -> Numbers:
    """This rank's share, a contiguous part."""
    share: Numbers = np.array_split(x, parallel.world())[parallel.rank()]
    return share


def places(n: int, first: int, count: int, seed: int) -> Numbers:
    """`count` places below n, from the `first` on, of an endless stream of permutations: each comes equally often."""
    epochs = range(first // n, -(-(first + count) // n))
    stream = np.concatenate([np.empty(0, np.int64), *(permutation(n, seed, epoch) for epoch in epochs)])
    return stream[first % n :][:count]


@lru_cache(2)
def permutation(n: int, seed: int, epoch: int) -> Numbers:
    return np.random.default_rng([seed, epoch]).permutation(n)
