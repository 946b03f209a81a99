"""Stage baseline@<baseline>: train the backbone of every method from scratch with labels, without pretraining.

→ artifacts/baselines/<baseline>/scores.csv, scores.npz, metrics.json. Equal backbones are trained once, under the name
of the first method.
"""

from data.shards import Prepared
from models.methods import BASELINES
from pipelines.evaluation.supervised import runs, trials
from pipelines.evaluation.supervised.training import Labelled
from pipelines.machine import distributed, ranks
from pipelines.project import config, stage


def main(baseline: str) -> None:
    c, prepared = config.load(), Prepared(stage.PREPARED)
    runs.check(baseline, c.of_baseline(baseline), c)
    ranks.share(c.pretrain.processes)
    found: list[runs.Run] = []
    with distributed.joined() as device:
        data = Labelled(prepared, c.pretrain, device)
        if c.labelled_trainings and data.enough:
            found = runs.run(f"baseline@{baseline}", data, trials.from_scratch(baseline, c, data), c.baseline, c.seed)
    if ranks.first():
        runs.save(found, stage.baseline(baseline, "scores.csv"), stage.baseline(baseline, "metrics.json"))


if __name__ == "__main__":
    ranks.enter("baseline", main, __doc__, BASELINES)
