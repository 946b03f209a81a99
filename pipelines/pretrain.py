"""Stage pretrain@<method>: data/prepared → artifacts/methods/<method>/checkpoint.pt, history.jsonl.

On many GPUs of a machine: `pretrain.processes`; of many machines: `torchrun … -m pipelines.pretrain simclr` on each.
The batch is the same, in as many parts.
"""

import shutil
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from data.batches import Batches
from data.shards import Prepared
from models.methods import METHODS
from pipelines.engine import initial_weights
from pipelines.engine.loop import Stop, Training, train
from pipelines.engine.monitor import Watch
from pipelines.machine import distributed, footprint, hardware, ranks
from pipelines.machine.flops import check_size
from pipelines.machine.hardware import Setting
from pipelines.project import config, stage
from pipelines.project.config import Config
from pipelines.project.stage import StageError
from pipelines.registry.live_curves import LiveRun
from pipelines.saving import checkpoints
from pipelines.saving.checkpoints import Checkpoints
from pipelines.saving.pretrained import Pretrained


def main(name: str) -> None:
    ranks.check_environment()
    prepared = Prepared(stage.PREPARED)
    given = config.load()
    c = given.fitted(images := len(prepared.rows("train")))
    config.check_batch(name, c.method(name), images, ranks.size(c.pretrain.processes))
    if not ranks.started():
        for line in config.cut(name, given, c, images):
            print(line)
    ranks.share(c.pretrain.processes)
    pretrain(name, c, prepared)


@dataclass(frozen=True)
class Trained:
    """What a training leaves; of other ranks than the first, tensors and files are not there."""

    weights: dict[str, Tensor]
    decoder: dict[str, Tensor]  # what the method keeps for pictures
    saves: Checkpoints | None
    live: LiveRun | None


def pretrain(name: str, c: Config, prepared: Prepared) -> None:
    """In this process, alone or as one of several: once a seed, and then all that they leave."""
    params, m = c.method(name), prepared.manifest
    started_from = initial_weights.init_digest(params)
    trained: dict[int, Trained] = {}
    with distributed.joined() as device:
        for seed in range(c.seed, c.seed + c.seeds):
            trained[seed] = once(name, c, seed, prepared, started_from, device, trained.get(c.seed))
    first = trained.pop(c.seed)
    if not (first.saves and first.live):
        return
    spec = {
        "method": name,
        "dataset": c.dataset,
        "data_digest": m.digest,
        "image_size": m.preprocess.size,
        "preprocess": m.preprocess.to_json(),
        "encoder": asdict(params.encoder),
        "init_digest": started_from,
    }
    repeats = {seed: other.weights for seed, other in trained.items()}
    left = Pretrained(first.weights, spec, first.live.id, repeats, first.decoder)
    left.write(stage.artifact(name, "checkpoint.pt"))
    shutil.copyfile(first.saves.history, stage.artifact(name, "history.jsonl"))
    for each in (first, *trained.values()):
        assert each.saves
        each.saves.clear()


def once(
    name: str,
    c: Config,
    seed: int,
    prepared: Prepared,
    started_from: str | None,
    device: torch.device,
    first: Trained | None,
) -> Trained:
    """One training, of this seed; `first` is the one that MLflow shows, None for that one itself."""
    params, m = c.method(name), prepared.manifest
    batches = Batches(prepared, prepared.rows("train"), params.batch_size, seed, shuffle=c.pretrain.shuffle)
    build = partial(c.build, name, m, seed)
    check_size(name, build, device)
    processes = ranks.size(c.pretrain.processes)
    footprint.check(name, build, params, m.preprocess.size, c.pretrain, processes, device)
    method = build()
    which = f"{name}: seed {seed}, to {c.seed + c.seeds - 1}" if c.seeds > 1 else None
    for line in (which, batches.advice(), initial_weights.apply(method, params, name)):
        if line:
            print(line)
    steps = params.epochs * len(batches)
    setting = hardware.choose(c.pretrain, method, params, m.preprocess.size, steps, device)
    watch = Watch(prepared, method, setting, device, c.pretrain.watch, len(batches), steps)
    stop, saves, live = Stop(), None, first.live if first else None
    if ranks.first():
        others = identity(name, c, seed, setting, m.digest, started_from)
        saves = Checkpoints(name, others, seed if first else None)
    try:
        with stop.held():  # MLflow has no half-made run, which nobody would end
            if saves and not live:
                live = LiveRun(c.dataset, name, saves.run)
        log = live.log if live and not first else lambda row: None
        with footprint.explained(name, params, processes):
            training = Training(method, params, c.pretrain, setting, device)
            train(name, training, batches, watch, saves, log, stop, keep=c.seeds > 1)
        weights, every = distributed.whole(method.encoder), distributed.whole(method)
        if not all(v.isfinite().all() for v in weights.values()):
            raise StageError(
                f"diverged: the encoder is not finite at the end; lower {name}.optim.lr (now {params.optim.lr})"
            )
    except BaseException as end:
        if live:
            stopped = isinstance(end, SystemExit | KeyboardInterrupt | BrokenPipeError)  # the last: the flow was killed
            live.end("KILLED" if stopped else "FAILED")
        raise
    if live:
        live.close()
    return Trained(weights, {k: v for k, v in every.items() if k.startswith(method.KEPT)}, saves, live)


def identity(
    name: str, c: Config, seed: int, setting: Setting, data_digest: str, started_from: str | None
) -> dict[str, Any]:
    """All that decides the numbers of a run; what is computed twice to save memory is the same."""
    params = {key: value for key, value in asdict(c.method(name)).items() if key != "recompute"}
    how = {"precision": str(setting.precision), "compile": setting.compiled, "shuffle": c.pretrain.shuffle}
    return {
        "params": {name: params, "seed": seed, "pretrain": how},
        "data": data_digest,
        "code": checkpoints.code(name),
        "torch": torch.__version__,
        "init": started_from,
    }


if __name__ == "__main__":
    ranks.enter("pretrain", main, __doc__, METHODS)
