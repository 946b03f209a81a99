"""What a run's trainings will do with the prepared images: `python -m pipelines.plan [STAGE…]`, after prepare.

Says first what is impossible, so that nothing is told after an hour that could be told before; then how long it takes,
measured by a few steps of each method.
"""

import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from data.shards import Prepared
from models.evaluation import probe
from models.method import Method, MethodParams
from models.methods import BASELINES, BaselineParams
from pipelines import memory
from pipelines.engine import initial_weights
from pipelines.engine.loop import Training
from pipelines.engine.prefetch import Inputs, generator
from pipelines.evaluation import supervised_runs, trials
from pipelines.evaluation.champion import FEW
from pipelines.evaluation.supervised_training import Labelled
from pipelines.machine import flops, footprint, gpus, hardware
from pipelines.project import config, stage
from pipelines.project.config import Config
from pipelines.project.stage import StageError
from serving.host.command import Parser

STEPS = 2  # that are timed, after one that is not
SECONDS = 2.0  # after which no further step is timed
AT_ONCE = 32, 2e11  # images and FLOPs of a timed step, at most
OTHERWISE = 100.0  # s of all that does not train: to start the stages, register, export, deploy; on 2 cores
KINDS = {"pretrain": "pretraining", "finetune": "fine-tuning", "baseline": "the baselines"}


def main(wanted: Sequence[str]) -> None:
    """wanted: the stages that will run, as `pretrain@simclr`; none: all of them."""
    prepared = Prepared(stage.PREPARED)
    given = config.load()
    c = given.fitted(images := len(prepared.rows("train")))
    for name in c.methods:
        config.check_batch(name, c.method(name), images, c.pretrain.processes)
        for line in config.cut(name, given, c, images):
            print(line)
    check_labels(c, prepared)
    every = [f"{kind}@{name}" for kind in KINDS for name in (BASELINES if kind == "baseline" else c.methods)]
    if unknown := sorted(set(wanted) - set(every)):
        raise StageError(f"{unknown[0]} is no stage that trains; allowed: {', '.join(every)}")
    torch.set_num_threads(hardware.threads())
    with gpus.device() as device:
        for name in c.methods:
            flops.check_size(name, partial(c.build, name, prepared.manifest), device)
            if c.method(name).encoder.init:  # are the weights there, and do they fit?
                initial_weights.apply(c.build(name, prepared.manifest), c.method(name), name)
        data = Labelled(prepared, c.pretrain, device)
        for work in memory.trainings(c, len(prepared.classes), c.labelled_trainings and data.enough):
            if work.stage in (wanted or every):
                if isinstance(work.params, BaselineParams):
                    supervised_runs.check(work.section, work.params, c)
                footprint.check(work.section, work.build, work.params, data.size, c.pretrain, work.processes, device)
        seconds = durations(c, data, wanted or every)
    if seconds:
        print(said_of(seconds, c.labelled_trainings and c.promote.for_ == "embeddings"))


def check_labels(c: Config, prepared: Prepared) -> None:
    """Raises StageError where not every class has the labels that shall choose the champion."""
    y = {split: of[of >= 0] for split in ("train", "val", "test") for of in [prepared.labels(prepared.rows(split))]}
    if not all(len(np.unique(of)) > 1 for of in y.values()):
        return
    if c.promote.labels != "all" and not probe.shots_of(y["train"], [c.promote.labels]):
        fewest = int(np.unique(y["train"], return_counts=True)[1].min())
        raise StageError(
            f"promote.labels is {c.promote.labels}, and one class has {fewest} labelled images in train; allowed: "
            f"a count that every class has, or all"
        )
    if len(y["val"]) < FEW:
        print(f"val has {len(y['val'])} labelled images: whichever encoder is best on them may not be the best")


def durations(c: Config, data: Labelled, wanted: Sequence[str]) -> dict[str, float]:
    """Kind of stage → seconds of all its trainings, one after another; no entry where there is none."""
    found = dict.fromkeys(KINDS, 0.0)
    labelled = c.labelled_trainings and data.enough
    trained = {
        name: trials.from_scratch(name, c, data) for name in BASELINES if f"baseline@{name}" in wanted and labelled
    }
    for name in c.methods:
        params, method = c.method(name), c.build(name, data.prepared.manifest)
        encoder, samples = method.encoder, {"finetune": c.finetune, "baseline": c.baseline}
        if f"pretrain@{name}" in wanted:
            images = c.seeds * params.epochs * (len(data.train) // params.batch_size) * params.batch_size
            found["pretrain"] += images * per_image(method, params, c, data)
        own = {"finetune": [], "baseline": [t for of in trained.values() for t in of if t.who.endswith(f"-{name}")]}
        if f"finetune@{name}" in wanted and labelled:
            own["finetune"] = trials.fine_tunings(name, c, {c.seed + k: encoder for k in range(c.seeds)})
        if any(own.values()):
            each = per_image(data.baseline("supervised", encoder, c.finetune, c.seed), c.finetune, c, data)
            for kind, of in own.items():
                found[kind] += each * supervised_runs.images(
                    data, supervised_runs.plan(data, of, samples[kind], c.seed)
                )
    return {kind: seconds for kind, seconds in found.items() if seconds}


def per_image(method: Method, params: MethodParams | BaselineParams, c: Config, data: Labelled) -> float:
    """Seconds of a step of this training, an image: the fastest of a few, not compiled."""
    most = min(params.batch_size, AT_ONCE[0], len(data.train), round(AT_ONCE[1] / flops.flops(method, data.size)))
    n = max(2, most // params.accumulate * params.accumulate)
    setting = hardware.choose(data.how, method, params, data.size, 1, data.device)
    training = Training(method, params, data.how, setting, data.device)
    method.train()
    images = torch.from_numpy(data.prepared.images(data.train[:n])).to(data.device)
    began, fastest = time.monotonic(), float("inf")
    for step in range(1 + STEPS):
        draws = [d.to(data.device) for d in method.draw(n, data.size, data.size, generator(c.seed, step))]
        started = time.monotonic()
        training.step(Inputs(images, draws), 0.5)[1].item()
        fastest = min(fastest, (ended := time.monotonic()) - started)
        if ended - began > SECONDS:
            break
    return fastest / n


def said_of(seconds: dict[str, float], can_skip: bool) -> str:
    """How long all of it takes here, and what of it can be left out."""
    side = min(hardware.side_by_side(), max(1, torch.cuda.device_count() or hardware.cores()))
    walls = {kind: of / side for kind, of in seconds.items()}
    parts = ", ".join(f"{KINDS[kind]} {spoken(of)}" for kind, of in walls.items())
    total = spoken(OTHERWISE + sum(walls.values()))
    without = OTHERWISE + walls.get("pretrain", 0.0)
    hint = ""
    if can_skip and sum(walls.values()) > 2 * walls.get("pretrain", 0.0) and len(walls) > 1:
        hint = f". With labelled_trainings: false in params.yaml it takes about {spoken(without)}"
    return f"about {total} in all on this machine, as busy as it is now: {parts}{hint}"


def spoken(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`, `4 days`."""
    for limit, unit, size in ((90, "s", 1), (90 * 60, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{int(unit == 'h')}f} {unit}"
    return f"{seconds / 86400:.0f} days"


if __name__ == "__main__":
    parser = Parser(prog="python -m pipelines.plan", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="such as pretrain@simclr; none: all")
    stages: list[str] = parser.parse_args().stages
    stage.run("plan", lambda: main(stages))
