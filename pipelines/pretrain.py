"""Stage pretrain@<method>: data/prepared → artifacts/methods/<method>/checkpoint.pt, history.jsonl.

For several GPUs of one machine set `pretrain.processes`. For several machines run `torchrun … -m pipelines.pretrain
simclr` on each. The batch stays the same and is divided among the processes.
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
    """The result of a training run. Ranks other than the first have no tensors and no files."""

    weights: dict[str, Tensor]
    kept: dict[str, Tensor]  # what the method keeps beside its encoder
    saves: Checkpoints | None
    live: LiveRun | None


def pretrain(name: str, c: Config, prepared: Prepared) -> None:
    """Train once per seed in this process, alone or as one of several, then write the results."""
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
    heads = {seed: other.kept for seed, other in trained.items()}
    left = Pretrained(first.weights, spec, first.live.id, repeats, first.kept, heads)
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
    """One training run with this seed. `first` is the run that MLflow shows; None for that run itself."""
    params, m = c.method(name), prepared.manifest
    batches = Batches(prepared, prepared.rows("train"), params.batch_size, seed, shuffle=c.pretrain.shuffle)
    build = partial(c.build, name, m, seed)
    check_size(name, build, device)
    processes = ranks.size(c.pretrain.processes)
    footprint.check(name, build, params, m.preprocess.size, c.pretrain, processes, device)
    method = build()
    which = f"{name}: training run {seed - c.seed + 1} of {c.seeds} (seed {seed})" if c.seeds > 1 else None
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
        with stop.held():  # a signal must not leave a half-made run in MLflow that nobody ends
            if saves and not live:
                live = LiveRun(c.dataset, name, saves.run)
        log = live.log if live and not first else lambda row: None
        with footprint.explained(name, params, processes):
            training = Training(method, params, c.pretrain, setting, device)
            train(name, training, batches, watch, saves, log, stop, keep=c.seeds > 1)
        weights, every = distributed.whole(method.encoder), distributed.whole(method)
        if not all(v.isfinite().all() for v in weights.values()):
            raise StageError(
                f"Training diverged: the encoder's weights are not finite at the end. "
                f"Lower {name}.optim.lr in params.yaml (now {params.optim.lr})."
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
    """Everything that decides the numbers of a run. `recompute` is left out: it only saves memory."""
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
