"""The training runs with labels that a configuration asks for: fine-tunings of an encoder, baselines from scratch."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from models.encoders.encoder import Encoder
from models.methods import BaselineParams
from pipelines.evaluation.scores import INITIAL
from pipelines.evaluation.supervised.training import Labelled, Trial
from pipelines.machine import flops
from pipelines.project.config import Config


def fine_tunings(name: str, c: Config, encoders: Mapping[int, Encoder], initial: Encoder | None = None) -> list[Trial]:
    """Of the encoder of each seed, in every way. initial: the weights that all of them started from, if any."""
    found = []
    for way in ways(name, c):
        first = way[0] == f"{INITIAL}-{name}"
        starts = {seed: initial if first else encoder for seed, encoder in encoders.items()}
        found += [Trial(*way, start, seed, c.finetune.steps) for seed, start in starts.items() if start is not None]
    return found


def ways(name: str, c: Config) -> list[tuple[str, str, BaselineParams]]:
    """Who, which baseline and its numbers.

    With labels, also from the weights that pretraining started from, and if wanted with pseudo-labels beside them.
    """
    p = c.finetune
    same = {"batch_size": p.batch_size, "optim": p.optim, "views": p.views, "label_smoothing": p.label_smoothing}
    pseudo = replace(c.pseudolabel, **same, recompute=p.recompute)  # type: ignore[arg-type]
    found: list[tuple[str, str, BaselineParams]] = [(name, "supervised", p)]
    if c.method(name).encoder.init is not None:
        found.append((f"{INITIAL}-{name}", "supervised", p))
    if p.pseudolabel:
        found.append((f"{name}-pseudolabel", "pseudolabel", pseudo))
    return found


def from_scratch(baseline: str, c: Config, data: Labelled) -> list[Trial]:
    """On every backbone, of every seed."""
    fitted = c.fitted(len(data.train))
    seeds = range(c.seed, c.seed + c.seeds)
    return [trial(baseline, m, seed, fitted, data) for m in backbones(c) for seed in seeds]


def backbones(c: Config) -> Iterator[str]:
    """The methods whose encoder the baselines train: every encoder that differs from the earlier ones, or the first.

    Where an encoder starts from makes no difference.
    """
    found = []
    for m in c.methods if c.baseline.encoders == "all" else c.methods[:1]:
        if (encoder := replace(c.method(m).encoder, init=None)) not in found:
            found.append(encoder)
            yield m


def trial(baseline: str, name: str, seed: int, c: Config, data: Labelled) -> Trial:
    """Starts where the method's pretraining starts; sees as many images as the budget says of the pretraining's.

    It sees as many labelled images as a fine-tuning at least: a few training steps would prove nothing.
    """
    of, params = c.method(name), c.of_baseline(baseline)
    method = c.build(name, data.prepared.manifest, seed)
    pretrained = of.epochs * (len(data.train) // of.batch_size) * of.batch_size * flops.views(method, 1, data.size)
    steps = round(params.budget * pretrained / data.images_a_step(baseline, method.encoder, params))
    least = math.ceil(c.finetune.steps * c.finetune.batch_size / params.batch_size)
    return Trial(f"{baseline}-{name}", baseline, params, method.encoder, seed, max(steps, least))
