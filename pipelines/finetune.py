"""Stage finetune@<method>: the encoders of every pretraining seed, trained on end to end with few and with all labels.

→ artifacts/<method>/finetune.csv, finetune.json; also with pseudo-labels of all train images, by the same recipe.
"""

import sys
from dataclasses import replace

import torch

from data.shards import Prepared
from models.methods import ControlParams
from models.saved import restore
from pipelines import config, hardware, stage, trials
from pipelines.labelled import Labelled, Trial


def main(name: str) -> None:
    c = config.load()
    p = c.finetune
    same = {"batch_size": p.batch_size, "optim": p.optim, "views": p.views, "label_smoothing": p.label_smoothing}
    ways: list[tuple[str, str, ControlParams]] = [
        (name, "supervised", p),
        (f"{name}-pseudolabel", "pseudolabel", replace(c.pseudolabel, **same)),  # type: ignore[arg-type]
    ]
    checkpoint = torch.load(stage.artifact(name, "checkpoint.pt"), weights_only=True)
    encoders = {
        seed: restore(checkpoint["spec"], weights)
        for seed, weights in ({c.seed: checkpoint["weights"]} | checkpoint.get("repeats", {})).items()
    }
    runs: list[trials.Run] = []
    with hardware.device() as device:
        data = Labelled(Prepared(stage.PREPARED), c.pretrain, device)
        if data.enough:
            wanted = [Trial(*way, encoder, seed, p.steps) for way in ways for seed, encoder in encoders.items()]
            runs = trials.run(f"finetune@{name}", data, wanted, p, c.seed)
    trials.save(runs, stage.artifact(name, "finetune.csv"), stage.artifact(name, "finetune.json"))


if __name__ == "__main__":
    stage.run(f"finetune@{sys.argv[1]}", lambda: main(sys.argv[1]))
