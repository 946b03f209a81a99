"""Stage pretrain@<method>: data/prepared → artifacts/<method>/checkpoint.pt, history.jsonl.

On many GPUs of a machine: `pretrain.processes`; of many machines: `torchrun … -m pipelines.pretrain simclr` on each.
The batch is the same, in as many parts.
"""

import math
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from data.batches import Batches
from data.progress import Progress
from data.shards import Prepared
from models import methods, optim, parallel
from models.methods import ControlParams, Method, MethodParams
from pipelines import checkpoints, config, distributed, hardware, init, stage
from pipelines.checkpoints import Checkpoints
from pipelines.config import Config, PretrainParams
from pipelines.durable import write_atomically
from pipelines.feed import Feed, Inputs
from pipelines.hardware import Setting
from pipelines.live import LiveRun
from pipelines.meter import Meter, Row
from pipelines.stage import TRY_AGAIN, StageError


def main(name: str) -> None:
    c = config.load()
    prepared = Prepared(stage.PREPARED)
    check_batch(name, c.method(name), len(prepared.rows("train")), distributed.size(c.pretrain.processes))
    if c.pretrain.processes > 1 and not distributed.started():
        sys.exit(distributed.launch(c.pretrain.processes))
    pretrain(name, c, prepared)


def pretrain(name: str, c: Config, prepared: Prepared) -> None:
    """In this process, alone or as one of several."""
    params = c.method(name)
    m = prepared.manifest
    with distributed.joined() as device:
        batches = Batches(prepared, prepared.rows("train"), params.batch_size, c.seed, shuffle=c.pretrain.shuffle)
        method = methods.build(name, params, m.preprocess.size, m.mean, m.std, c.seed)
        started_from = init.init_digest(params)
        for said in (batches.advice(), init.apply(method, params, name)):
            if said:
                print(said)
        steps = params.epochs * len(batches)
        setting = hardware.choose(c.pretrain, method, params, m.preprocess.size, steps, device)
        saves = live = None
        if distributed.first():
            saves = Checkpoints(name, identity(name, c, setting, m.digest, started_from))
            live = LiveRun(c.dataset, name, saves.run)
        try:
            log = live.log if live else lambda row: None
            train(name, method, params, c.pretrain, setting, batches, device, saves, log)
            weights = distributed.whole(method.encoder)
            if not all(v.isfinite().all() for v in weights.values()):
                raise StageError(f"the encoder is not finite at the end; lower {name}.optim.lr (now {params.optim.lr})")
        except StageError:
            if live:
                live.fail()
            raise
    if saves and live:
        live.close()
        spec = {
            "method": name,
            "dataset": c.dataset,
            "data_digest": m.digest,
            "image_size": m.preprocess.size,
            "preprocess": m.preprocess.to_json(),
            "encoder": asdict(params.encoder),
            "init_digest": started_from,
        }
        content = {"weights": weights, "spec": spec, "run_id": live.id}
        write_atomically(stage.artifact(name, "checkpoint.pt"), content)
        shutil.copyfile(saves.history, stage.artifact(name, "history.jsonl"))
        saves.clear()


def check_batch(name: str, params: MethodParams, images: int, processes: int) -> None:
    """Raises StageError where the batch size fits neither the data set nor the number of processes."""
    b, parts = params.batch_size, processes * params.accumulate
    if not 2 <= b <= images:
        raise StageError(f"{name}.batch_size is {b}, the train split has {images} images; allowed: 2 to {images}")
    if b % parts:
        raise StageError(f"{name}.batch_size is {b}; allowed: a multiple of {parts}, processes times accumulate")


def identity(name: str, c: Config, setting: Setting, data_digest: str, started_from: str | None) -> dict[str, Any]:
    """All that decides the numbers of a run."""
    how = {"precision": str(setting.precision), "compile": setting.compiled, "shuffle": c.pretrain.shuffle}
    return {
        "params": {name: asdict(c.method(name)), "seed": c.seed, "pretrain": how},
        "data": data_digest,
        "code": checkpoints.code(name),
        "torch": torch.__version__,
        "init": started_from,
    }


def train(
    name: str,
    method: Method,
    params: MethodParams,
    how: PretrainParams,
    setting: Setting,
    batches: Batches,
    device: torch.device,
    saves: Checkpoints | None,
    log: Callable[[Row], None],
) -> None:
    """The loop. Resumes from the last checkpoint, leaves the trained method in place.

    saves: rank 0's, None elsewhere. Raises StageError when loss or gradient are not finite; on SIGTERM or Ctrl-C it
    saves and exits with TRY_AGAIN.
    """
    assert isinstance(method, nn.Module)
    stop = Stop()
    steps = params.epochs * len(batches)
    feed = Feed(batches, method, device)
    training = Training(method, params, how, setting, device)
    first = 0
    if state := distributed.from_first(saves.load() if saves else None):
        distributed.restore(method, training.optimizer, state)
        first = state["step"]

    def write(row: Row) -> None:
        for what, figure in (("loss", row["loss"]), ("gradient's norm", row["grad_norm"])):
            if not math.isfinite(figure):
                raise StageError(
                    f"the {what} is {figure} at step {row['step']} of {steps}; "
                    f"lower {name}.optim.lr (now {params.optim.lr})"
                )
        if saves:
            saves.append(row)
        log(row)
        progress.advance(0, loss=f"{row['loss']:.3f}")

    method.train()
    shown = sys.stderr if saves else sys.stdout  # which of other ranks is nowhere
    with Progress(
        steps * batches.batch_size, f"pretrain@{name}", "images", first * batches.batch_size, shown
    ) as progress:
        meter = Meter(device, batches.batch_size, write)
        saved = time.monotonic()
        for step, inputs in enumerate(feed.steps(first, steps), first):
            meter.begin()
            lr, loss, norm = training.step(inputs, step / steps)
            meter.end()
            progress.advance(batches.batch_size)
            stop.idle = False
            if (step + 1) % how.log_every == 0 or step + 1 == steps:
                known = {"step": step + 1, "epoch": (step + 1) / len(batches), "lr": lr}
                meter.row(known, {"loss": parallel.mean(loss), "grad_norm": norm})
            due = time.monotonic() - saved > 60 * how.checkpoint_minutes
            if step + 1 < steps and distributed.agreed(due or stop.asked):
                meter.settle()
                state = distributed.state(method, training.optimizer)
                if saves:
                    saves.save({"step": step + 1} | state)
                saved = time.monotonic()
                meter.end()  # a save is no wait for an input
                if distributed.agreed(stop.asked):
                    print(f"pretrain@{name}: stopped at step {step + 1}; run the same command to go on", file=shown)
                    sys.exit(TRY_AGAIN)
        meter.settle()


class Training:
    """A method as this machine trains it fastest, its optimiser, and what a step does with them."""

    def __init__(
        self,
        method: Method,
        params: MethodParams | ControlParams,
        how: PretrainParams,
        setting: Setting,
        device: torch.device,
    ):
        assert isinstance(method, nn.Module)
        self.method, self.params, self.device = method, params, device
        self.setting = setting
        hardware.settle(setting, method, device)
        self.loss_of = distributed.spread(method, how.sharded)
        self.optimizer = optim.build(params.optim, method)
        self.trainable = [p for p in method.parameters() if p.requires_grad]

    def step(self, inputs: Inputs, done: float) -> tuple[float, Tensor, Tensor]:
        """At progress `done` in [0, 1]: learning rate, loss and the gradient's norm; the host waits for nothing."""
        p, optimizer = self.params, self.optimizer
        lr = optim.set_schedule(optimizer, p.optim, p.batch_size, done)
        loss = torch.zeros((), device=self.device)
        for images, draws, complete in inputs.parts(p.accumulate):
            views = [self.setting.shape(v) for v in self.method.views(images, draws)]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.setting.bf16):
                part = self.loss_of(views, done, complete) / p.accumulate
            part.backward()  # type: ignore[no-untyped-call]
            loss = loss + part.detach()
        norm = optim.clip(p.optim, self.trainable)
        self.method.before_step(done)
        optimizer.step()
        optimizer.zero_grad()
        self.method.after_step(done)
        return lr, loss, norm


class Stop:
    """What SIGTERM and Ctrl-C ask for; before the first step is done there is nothing to save, and they end at once."""

    def __init__(self) -> None:
        self.asked, self.idle = False, True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _frame: self.ask())

    def ask(self) -> None:
        self.asked = True
        if self.idle and not distributed.started():  # ranks must agree on where to stop
            sys.exit(TRY_AGAIN)


if __name__ == "__main__":
    distributed.to_the_end(
        lambda: stage.run(f"pretrain@{sys.argv[1]}", lambda: main(sys.argv[1]), distributed.guarded())
    )
