"""The loop that trains a method: steps, health checks, history rows and checkpoints."""

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from data.batches import Batches
from data.progress import Progress
from models import optim, parallel
from models.diagnose import EARLY, diagnose
from models.diagnosis import HOPELESS
from models.encoders.vit import recompute
from models.method import Method, MethodParams
from models.methods import BaselineParams
from pipelines.engine.monitor import Watch
from pipelines.engine.prefetch import Inputs, pretraining
from pipelines.engine.step_metrics import Meter
from pipelines.machine import distributed, hardware, ranks
from pipelines.machine.hardware import Setting
from pipelines.project.config import PretrainParams
from pipelines.project.history import Row
from pipelines.project.stage import TRY_AGAIN, StageError
from pipelines.saving.checkpoints import Checkpoints
from pipelines.saving.saver import Saver

NAMES = {"grad_norm": "gradient norm", "held_out_loss": "loss on held-out images"}


def train(
    name: str,
    training: "Training",
    batches: Batches,
    watch: Watch,
    saves: Checkpoints | None,
    log: Callable[[Row], None],
    stop: "Stop",
    keep: bool = False,
) -> None:
    """Train the method in place, from the last checkpoint on.

    saves: given to rank 0 only. keep: save a checkpoint of the last step too. Raises StageError when a figure is not
    finite. On SIGTERM or Ctrl-C it saves a checkpoint and exits with TRY_AGAIN.
    """
    method, params, how, steps = training.method, training.params, training.how, watch.steps
    assert isinstance(params, MethodParams)
    feed = pretraining(batches, method, training.device)
    loaded = saves.load() if saves else None
    if first := distributed.from_first(loaded["step"] if loaded else 0):
        distributed.restore(method, training.optimizer, loaded)
    del loaded  # as large as the training itself
    before = saves.rows().splitlines() if saves else []
    rows: list[Row] = [json.loads(line) for line in distributed.from_first(before)]

    def write(row: Row) -> None:
        for what, figure in row.items():
            if not math.isfinite(figure):
                raise StageError(
                    f"Training diverged: the {NAMES.get(what, what)} is {figure} at step {row['step']} of {steps}. "
                    f"Lower {name}.optim.lr in params.yaml (now {params.optim.lr})."
                )
        saver.check()
        if saves:
            saves.append(row)
        log(row)
        rows.append(row)
        progress.advance(0, loss=f"{row['loss']:.3f}")
        if how.stop_on_collapse and watch.due(int(row["step"])) and row["epoch"] >= EARLY * params.epochs:
            found = diagnose(name, params, rows)
            if found.name in HOPELESS:
                sentence = str(found)
                raise StageError(f"{sentence} Stopped at step {row['step']} of {steps} (pretrain.stop_on_collapse).")

    method.train()
    shown = sys.stderr if saves else sys.stdout  # other ranks show no progress
    began = first * batches.batch_size
    with (
        Progress(steps * batches.batch_size, f"pretrain@{name}", "images", began, shown) as progress,
        Saver(saves) as saver,
    ):
        meter = Meter(training.device, batches.batch_size, write)
        saved = time.monotonic()
        for step, inputs in enumerate(feed.steps(first, steps), first):
            meter.begin()
            lr, loss, norm = training.step(inputs, step / steps)
            if (step + 1) % len(batches) == 0:
                method.after_epoch()
            meter.end()
            progress.advance(batches.batch_size)
            stop.idle = False
            watched = watch.due(step + 1)
            if watched or (step + 1) % how.log_every == 0 or step + 1 == steps:
                known = {"step": step + 1, "epoch": (step + 1) / len(batches), "lr": lr}
                figures = {"loss": parallel.mean(loss), "grad_norm": norm}
                meter.row(known, figures | (watch.check(step / steps) if watched else {}))
                meter.end()  # a health check is no wait for an input
            due = time.monotonic() - saved > 60 * how.checkpoint_minutes
            wanted = keep if step + 1 == steps else distributed.agreed(due or stop.asked)
            if wanted:
                meter.flush()
                saver.wait()  # for the one before, so that two states are never in memory
                saver.save({"step": step + 1} | distributed.state(method, training.optimizer))
                saved = time.monotonic()
                meter.end()  # a save is no wait for an input
                if distributed.agreed(stop.asked):
                    saver.wait()
                    distributed.agreed(
                        False
                    )  # wait for all ranks: `launch` ends rank 0 soon after the first rank has left
                    print(f"pretrain@{name}: Stopped at step {step + 1}. Run the same command to resume.", file=shown)
                    sys.exit(TRY_AGAIN)
        meter.flush()
        saver.wait()


class Training:
    """A method, set up to train fast on this machine, with its optimiser; `step` does one step."""

    def __init__(
        self,
        method: Method,
        params: MethodParams | BaselineParams,
        how: PretrainParams,
        setting: Setting,
        device: torch.device,
    ):
        self.method, self.params, self.how, self.device = method, params, how, device
        self.setting = setting
        if params.recompute:
            recompute(method)
        hardware.place(setting, method, device)
        self.loss_of = distributed.spread(method, how.sharded, setting.bf16)
        self.optimizer = optim.build(params.optim, method, spare_tokens=isinstance(params, BaselineParams))
        self.trainable = [p for p in method.parameters() if p.requires_grad]

    def step(self, inputs: Inputs, done: float) -> tuple[float, Tensor, Tensor]:
        """One step at progress `done` in [0, 1]: learning rate, loss and gradient norm, still on the device."""
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
    """Notes SIGTERM and Ctrl-C. Before the first step there is nothing to save, so they end the process immediately."""

    def __init__(self) -> None:
        self.asked, self.idle = False, True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _frame: self.ask())

    def ask(self) -> None:
        again, self.asked = self.asked, True  # a second signal changes nothing
        if not again:
            self.end_if_idle()

    def end_if_idle(self) -> None:
        if self.asked and self.idle and not ranks.started():  # ranks must agree on where to stop
            sys.exit(TRY_AGAIN)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Before the first step: a signal during the block takes effect at its end."""
        self.idle = False
        yield
        self.idle = True
        self.end_if_idle()
