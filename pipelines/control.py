"""Stage control@<control>: what labels give without pretraining, from scratch on the backbone of every method.

→ artifacts/<control>/scores.csv, metrics.json. Backbones that are equal are trained once, named by the first method.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

from data.shards import Prepared
from models import methods
from models.methods import METHODS
from pipelines import config, cost, hardware, stage, trials
from pipelines.config import Config
from pipelines.labelled import Labelled, Trial


def main(control: str) -> None:
    c = config.load()
    runs: list[trials.Run] = []
    with hardware.device() as device:
        data = Labelled(Prepared(stage.PREPARED), c.pretrain, device)
        if data.enough:
            seeds = range(c.seed, c.seed + c.seeds)
            wanted = [trial(control, m, seed, c, data) for m in backbones(c) for seed in seeds]
            runs = trials.run(f"control@{control}", data, wanted, c.control, c.seed)
    trials.save(runs, stage.artifact(control, "scores.csv"), stage.artifact(control, "metrics.json"))


def backbones(c: Config) -> Iterator[str]:
    """The methods whose encoder no earlier method has; where they start from does not tell them apart."""
    found = []
    for m in METHODS:
        if (encoder := replace(c.method(m).encoder, init=None)) not in found:
            found.append(encoder)
            yield m


def trial(control: str, name: str, seed: int, c: Config, data: Labelled) -> Trial:
    """Starts where the method's pretraining starts; sees as many images as the budget says of the pretraining's."""
    of, params, m = c.method(name), c.of_control(control), data.prepared.manifest
    method = methods.build(name, of, data.size, m.mean, m.std, seed)
    pretrained = of.epochs * (len(data.train) // of.batch_size) * of.batch_size * cost.views(method, 1, data.size)
    steps = round(params.budget * pretrained / data.images_a_step(control, method.encoder, params))
    return Trial(f"{control}-{name}", control, params, method.encoder, seed, max(1, steps))


if __name__ == "__main__":
    stage.run(f"control@{sys.argv[1]}", lambda: main(sys.argv[1]))
