"""Stage finetune@<method>: train the encoder of every pretraining seed end to end, with few and with all labels.

→ artifacts/methods/<method>/finetune.csv, finetune.npz, finetune.json. It also trains with pseudo-labels of all train
images, and from the weights that the pretraining started from, if any.
"""

from data.shards import Prepared
from models.methods import METHODS
from pipelines.evaluation import starting_weights
from pipelines.evaluation.supervised import runs, trials
from pipelines.evaluation.supervised.training import Labelled
from pipelines.machine import distributed, ranks
from pipelines.project import config, stage
from pipelines.saving.pretrained import Pretrained


def main(name: str) -> None:
    c = config.load()
    runs.check("finetune", c.finetune, c)
    ranks.share(c.pretrain.processes)
    prepared, pretrained = Prepared(stage.PREPARED), Pretrained.read(stage.artifact(name, "checkpoint.pt"))
    encoders, initial = pretrained.encoders(c.seed), starting_weights.encoder(name, c, prepared.manifest, pretrained)
    found: list[runs.Run] = []
    with distributed.joined() as device:
        data = Labelled(prepared, c.pretrain, device)
        if c.labelled_trainings and data.enough:
            found = runs.run(
                f"finetune@{name}", data, trials.fine_tunings(name, c, encoders, initial), c.finetune, c.seed
            )
    if ranks.first():
        runs.save(found, stage.artifact(name, "finetune.csv"), stage.artifact(name, "finetune.json"))


if __name__ == "__main__":
    ranks.enter("finetune", main, __doc__, METHODS)
