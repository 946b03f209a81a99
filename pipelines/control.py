"""Stage control@<control>: what labels give without pretraining, from scratch on the backbone of every method.

→ artifacts/baselines/<control>/scores.csv, metrics.json. Equal backbones are trained once, named by the first method.
"""

from data.shards import Prepared
from models.methods import CONTROLS
from pipelines.evaluation import supervised_runs, trials
from pipelines.evaluation.supervised_training import Labelled
from pipelines.machine import distributed, ranks
from pipelines.project import config, stage


def main(control: str) -> None:
    c, prepared = config.load(), Prepared(stage.PREPARED)
    supervised_runs.check(control, c.of_control(control), c)
    ranks.share(c.pretrain.processes)
    runs: list[supervised_runs.Run] = []
    with distributed.joined() as device:
        data = Labelled(prepared, c.pretrain, device)
        if c.labelled_trainings and data.enough:
            runs = supervised_runs.run(
                f"control@{control}", data, trials.from_scratch(control, c, data), c.control, c.seed
            )
    if ranks.first():
        supervised_runs.save(runs, stage.baseline(control, "scores.csv"), stage.baseline(control, "metrics.json"))


if __name__ == "__main__":
    ranks.enter("control", main, __doc__, CONTROLS)
