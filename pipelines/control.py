"""Stage control@<control>: what labels give without pretraining, from scratch on the backbone of every method.

→ artifacts/<control>/scores.csv, metrics.json. Backbones that are equal are trained once, named by the first method.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import replace

from data.shards import Prepared
from models.methods import METHODS
from pipelines import config, cost, distributed, ranks, stage, trials
from pipelines.config import Config
from pipelines.labelled import Labelled, Trial


def main(control: str) -> None:
    c, prepared = config.load(), Prepared(stage.PREPARED)
    trials.check(control, c.of_control(control), c)
    ranks.share(c.pretrain.processes)
    runs: list[trials.Run] = []
    with distributed.joined() as device:
        data = Labelled(prepared, c.pretrain, device)
        if c.labelled_trainings and data.enough:
            runs = trials.run(f"control@{control}", data, wanted(control, c, data), c.control, c.seed)
    if ranks.first():
        trials.save(runs, stage.artifact(control, "scores.csv"), stage.artifact(control, "metrics.json"))


def wanted(control: str, c: Config, data: Labelled) -> list[Trial]:
    """On every backbone, of every seed."""
    fitted = c.fitted(len(data.train))
    seeds = range(c.seed, c.seed + c.seeds)
    return [trial(control, m, seed, fitted, data) for m in backbones(c) for seed in seeds]


def backbones(c: Config) -> Iterator[str]:
    """The methods whose encoder no earlier method has; where they start from does not tell them apart."""
    found = []
    for m in METHODS:
        if (encoder := replace(c.method(m).encoder, init=None)) not in found:
            found.append(encoder)
            yield m


def trial(control: str, name: str, seed: int, c: Config, data: Labelled) -> Trial:
    """Starts where the method's pretraining starts; sees as many images as the budget says of the pretraining's.

    It sees as many labelled images as a fine-tuning at least: a training of a few steps would prove nothing.
    """
    of, params = c.method(name), c.of_control(control)
    method = c.build(name, data.prepared.manifest, seed)
    pretrained = of.epochs * (len(data.train) // of.batch_size) * of.batch_size * cost.views(method, 1, data.size)
    steps = round(params.budget * pretrained / data.images_a_step(control, method.encoder, params))
    least = math.ceil(c.finetune.steps * c.finetune.batch_size / params.batch_size)
    return Trial(f"{control}-{name}", control, params, method.encoder, seed, max(steps, least))


if __name__ == "__main__":
    ranks.to_the_end(lambda: stage.run(f"control@{sys.argv[1]}", lambda: main(sys.argv[1]), ranks.guarded()))
