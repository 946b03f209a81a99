"""Stage finetune@<method>: the encoders of every pretraining seed, trained on end to end with few and with all labels.

→ artifacts/<method>/finetune.csv, finetune.json; also with pseudo-labels of all train images, by the same recipe.
"""

import sys

import torch

from data.shards import Prepared
from models.saved import restore
from pipelines.evaluation import supervised_runs, trials
from pipelines.evaluation.supervised_training import Labelled
from pipelines.machine import distributed, ranks
from pipelines.project import config, stage


def main(name: str) -> None:
    c = config.load()
    supervised_runs.check("finetune", c.finetune, c)
    ranks.share(c.pretrain.processes)
    checkpoint = torch.load(stage.artifact(name, "checkpoint.pt"), weights_only=True)
    weights = {c.seed: checkpoint["weights"]} | checkpoint.get("repeats", {})
    encoders = {seed: restore(checkpoint["spec"], of) for seed, of in weights.items()}
    runs: list[supervised_runs.Run] = []
    with distributed.joined() as device:
        data = Labelled(Prepared(stage.PREPARED), c.pretrain, device)
        if c.labelled_trainings and data.enough:
            runs = supervised_runs.run(
                f"finetune@{name}", data, trials.fine_tunings(name, c, encoders), c.finetune, c.seed
            )
    if ranks.first():
        supervised_runs.save(runs, stage.artifact(name, "finetune.csv"), stage.artifact(name, "finetune.json"))


if __name__ == "__main__":
    ranks.to_the_end(lambda: stage.run(f"finetune@{sys.argv[1]}", lambda: main(sys.argv[1]), ranks.guarded()))
