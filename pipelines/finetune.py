"""Stage finetune@<method>: the encoders of every pretraining seed, trained on end to end with few and with all labels.

→ artifacts/<method>/finetune.csv, finetune.json; also with pseudo-labels of all train images, by the same recipe.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace

import torch

from data.shards import Prepared
from models.encoder import Encoder
from models.methods import ControlParams
from models.saved import restore
from pipelines import config, distributed, ranks, stage, trials
from pipelines.config import Config
from pipelines.labelled import Labelled, Trial


def main(name: str) -> None:
    c = config.load()
    trials.check("finetune", c.finetune, c)
    ranks.share(c.pretrain.processes)
    checkpoint = torch.load(stage.artifact(name, "checkpoint.pt"), weights_only=True)
    weights = {c.seed: checkpoint["weights"]} | checkpoint.get("repeats", {})
    encoders = {seed: restore(checkpoint["spec"], of) for seed, of in weights.items()}
    runs: list[trials.Run] = []
    with distributed.joined() as device:
        data = Labelled(Prepared(stage.PREPARED), c.pretrain, device)
        if c.labelled_trainings and data.enough:
            runs = trials.run(f"finetune@{name}", data, wanted(name, c, encoders), c.finetune, c.seed)
    if ranks.first():
        trials.save(runs, stage.artifact(name, "finetune.csv"), stage.artifact(name, "finetune.json"))


def wanted(name: str, c: Config, encoders: Mapping[int, Encoder]) -> list[Trial]:
    """Of the encoder of each seed, in every way."""
    return [Trial(*way, encoder, seed, c.finetune.steps) for way in ways(name, c) for seed, encoder in encoders.items()]


def ways(name: str, c: Config) -> list[tuple[str, str, ControlParams]]:
    """Who, which control and its numbers: with labels, and with pseudo-labels beside them."""
    p = c.finetune
    same = {"batch_size": p.batch_size, "optim": p.optim, "views": p.views, "label_smoothing": p.label_smoothing}
    return [
        (name, "supervised", p),
        (f"{name}-pseudolabel", "pseudolabel", replace(c.pseudolabel, **same, recompute=p.recompute)),  # type: ignore[arg-type]
    ]


if __name__ == "__main__":
    ranks.to_the_end(lambda: stage.run(f"finetune@{sys.argv[1]}", lambda: main(sys.argv[1]), ranks.guarded()))
