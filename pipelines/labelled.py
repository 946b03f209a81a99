"""One training with labels: from a given encoder and labelled images to accuracies on val and test."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data.shards import Prepared
from models import methods
from models.encoder import Encoder
from models.methods import Control, ControlParams
from models.supervised import SupervisedParams, predict
from pipelines import cost, hardware
from pipelines.config import PretrainParams
from pipelines.feed import Inputs, generator
from pipelines.pretrain import Training
from pipelines.stage import StageError

BATCH = 256  # of predictions
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """Top-1 in percent, the seconds of the training, and the images that went through its backbone."""

    val: float
    test: float
    seconds: float
    images: int


@dataclass(frozen=True)
class Trial:
    """A start, and a way to go on from it with labels."""

    who: str  # of the scores
    control: str  # which of methods.CONTROLS
    params: ControlParams
    encoder: Encoder  # of which every training gets a copy
    seed: int  # of the encoder
    steps: int


class Labelled:
    """The labelled images of a prepared folder, and how this machine trains on them."""

    def __init__(self, prepared: Prepared, how: PretrainParams, device: torch.device):
        self.prepared, self.device = prepared, device
        self.how = replace(how, compile=False, sharded=False)  # many short trainings, each of its own network
        self.size = prepared.manifest.preprocess.size
        self.train = prepared.rows("train")
        self.rows: dict[str, Numbers] = {}
        self.y: dict[str, Numbers] = {}
        for split in ("train", "val", "test"):
            labels = prepared.labels(rows := prepared.rows(split))
            self.rows[split], self.y[split] = rows[labels >= 0], labels[labels >= 0]

    @property
    def enough(self) -> bool:
        """Whether there is something to learn and to judge: two classes in each split."""
        return all(len(np.unique(y)) > 1 for y in self.y.values())

    def control(self, name: str, encoder: Encoder, params: ControlParams, seed: int) -> Control:
        """A control over this encoder, with a head of as many classes as there are."""
        return methods.control(name, encoder, params, self.size, len(self.prepared.classes), seed)

    def images_a_step(self, name: str, encoder: Encoder, params: ControlParams) -> int:
        """That go through the backbone."""
        n, more = batch_of(params)
        return round(n * cost.views(self.control(name, encoder, params, 0), 1 + more // n, self.size))

    def fit(self, trial: Trial, labelled: Numbers, seed: int, advance: Callable[[int], None]) -> Outcome:
        """Train on these labelled rows, and on all train images as unlabelled ones; then judge, once, as it is.

        advance: told after each step how many images went through the backbone. All chance is a function of
        (seed, step). Raises StageError where the loss is not finite at the end.
        """
        started = time.monotonic()
        params, steps = trial.params, trial.steps
        control = self.control(trial.control, copy.deepcopy(trial.encoder), params, seed)
        assert isinstance(control, nn.Module)
        images = self.images_a_step(trial.control, trial.encoder, params)
        setting = hardware.choose(self.how, control, params, self.size, steps, self.device)
        training = Training(control, params, self.how, setting, self.device)
        control.train()
        loss = torch.zeros(())
        for step in range(steps):
            _, loss, _ = training.step(self.inputs(control, params, labelled, seed, step), step / steps)
            advance(images)
        if not loss.isfinite():
            raise StageError(f"the loss is {loss.item()} at the end; lower optim.lr (now {params.optim.lr})")
        val, test = (self.accuracy(control, split) for split in ("val", "test"))
        return Outcome(val, test, time.monotonic() - started, steps * images)

    def inputs(self, control: Control, params: ControlParams, labelled: Numbers, seed: int, step: int) -> Inputs:
        """Labelled images first, then unlabelled ones; the last of the draws are the labels of the first."""
        n, more = batch_of(params)
        known = labelled[places(len(labelled), step * n, n, seed)]
        others = self.train[places(len(self.train), step * more, more, seed + 1)]
        *draws, y = control.draw(n + more, self.size, self.size, generator(seed, step))
        y[:n] = torch.from_numpy(self.prepared.labels(known))
        images = torch.from_numpy(self.prepared.images(np.concatenate([known, others])))
        return Inputs(images.to(self.device), [d.to(self.device) for d in (*draws, y)])

    def accuracy(self, control: nn.Module, split: str) -> float:
        rows = self.rows[split]
        chunks = np.array_split(rows, -(-len(rows) // BATCH))
        images = (torch.from_numpy(self.prepared.images(chunk)).to(self.device) for chunk in chunks)
        predicted = torch.cat([predict(control, x) for x in images]).cpu().numpy()
        return 100 * float((predicted == self.y[split]).mean())


def batch_of(params: ControlParams) -> tuple[int, int]:
    """Labelled and unlabelled images of a step."""
    more = 0 if isinstance(params, SupervisedParams) else params.unlabelled
    return params.batch_size, params.batch_size * more


def places(n: int, first: int, count: int, seed: int) -> Numbers:
    """`count` places below n, from the `first` on, of an endless stream of permutations: each comes equally often."""
    epochs = range(first // n, -(-(first + count) // n))
    stream = np.concatenate([np.empty(0, np.int64), *(permutation(n, seed, epoch) for epoch in epochs)])
    return stream[first % n :][:count]


@lru_cache(2)
def permutation(n: int, seed: int, epoch: int) -> Numbers:
    return np.random.default_rng([seed, epoch]).permutation(n)
