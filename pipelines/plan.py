"""What a run will do with the prepared images: `python -m pipelines.plan [STAGE…]`, after prepare.

It first says what is impossible, before an hour of training has been spent, and then how long the run takes, measured
by a few steps of each method.
"""

import sys
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from data.shards import Prepared
from models.evaluation import probe
from models.methods import BASELINES, BaselineParams
from pipelines.engine import initial_weights
from pipelines.estimation import graph, trainings
from pipelines.estimation.estimate import KINDS, estimate, measure
from pipelines.evaluation.champion import FEW
from pipelines.evaluation.supervised import runs
from pipelines.evaluation.supervised.training import Labelled
from pipelines.machine import flops, footprint, gpus
from pipelines.project import config, stage
from pipelines.project.config import Config
from pipelines.project.parse import refused
from pipelines.project.stage import StageError
from serving.host.command import Parser


def main(wanted: Sequence[str]) -> None:
    """wanted: the stages that will run, as `pretrain@simclr`; none: all of them."""
    prepared = Prepared(stage.PREPARED)
    given = config.load()
    c = given.fitted(images := len(prepared.rows("train")))
    for name in c.methods:
        config.check_batch(name, c.method(name), images, c.pretrain.processes)
        for line in config.cut(name, given, c, images):
            print(line, file=sys.stderr)
    check_labels(c, prepared)
    every = [f"{kind}@{name}" for kind in KINDS for name in (BASELINES if kind == "baseline" else c.methods)]
    if unknown := sorted(set(wanted) - set(every)):
        raise StageError(f"There is no stage {unknown[0]} that trains. Allowed: {', '.join(every)}.")
    torch.set_num_threads(1)  # or the processes that are forked to measure would wait for threads that they lack
    with gpus.device() as device:
        for name in c.methods:
            flops.check_size(name, partial(c.build, name, prepared.manifest), device)
            if c.method(name).encoder.init:  # are the weights there, and do they fit?
                initial_weights.apply(c.build(name, prepared.manifest), c.method(name), name)
        data = Labelled(prepared, c.pretrain, device)
        for work in trainings.trainings(c, len(prepared.classes), c.labelled_trainings and data.enough):
            if work.stage in (wanted or every):
                if isinstance(work.params, BaselineParams):
                    runs.check(work.section, work.params, c)
                footprint.check(work.section, work.build, work.params, data.size, c.pretrain, work.processes, device)
        if of := [name for name in wanted or every if c.labelled_trainings or name.startswith("pretrain@")]:
            names = graph.below(graph.read(c), of)
            found = estimate(c, data, names, *measure(c, data, names))
            found.write()
            print(found.said(c.labelled_trainings and c.promote.for_ == "embeddings"), file=sys.stderr)


def check_labels(c: Config, prepared: Prepared) -> None:
    """Raises StageError where not every class has the labels that shall choose the champion."""
    y = {split: of[of >= 0] for split in ("train", "val", "test") for of in [prepared.labels(prepared.rows(split))]}
    if not all(len(np.unique(of)) > 1 for of in y.values()):
        return
    if c.promote.labels != "all" and not probe.shots_of(y["train"], [c.promote.labels]):
        fewest = int(np.unique(y["train"], return_counts=True)[1].min())
        allowed = f"a count that every class has (one class has {fewest} labelled images in train), or all"
        raise StageError(f"{refused('promote.labels', c.promote.labels, allowed)} Edit params.yaml.")
    if len(y["val"]) < FEW:
        print(
            f"The val split has only {len(y['val'])} labelled images, so the champion may not be the best encoder.",
            file=sys.stderr,
        )


if __name__ == "__main__":
    parser = Parser(prog="python -m pipelines.plan", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="such as pretrain@simclr; none: all")
    asked: list[str] = parser.parse_args().stages
    stage.run("plan", lambda: main(asked))
