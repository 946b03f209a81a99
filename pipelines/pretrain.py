"""Stage pretrain@<method>: data/prepared → artifacts/<method>/checkpoint.pt, history.jsonl."""

import math
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

import torch
from torch import Tensor, nn

from data.batches import Batches
from data.progress import Progress
from data.shards import Prepared
from models import methods, optim
from models.dino import DINOParams
from models.methods import Method, MethodParams
from pipelines import config, hardware, stage
from pipelines.checkpoints import Checkpoints, code
from pipelines.config import PretrainParams
from pipelines.durable import write_atomically
from pipelines.init import apply, init_digest
from pipelines.stage import StageError
from pipelines.tracking import LiveRun

TRY_AGAIN = 75  # EX_TEMPFAIL: stopped by SIGTERM with a checkpoint; the same command goes on from there
Row = dict[str, float]


def main(name: str) -> None:
    c = config.load()
    params = c.method(name)
    prepared = Prepared(stage.PREPARED)
    m = prepared.manifest
    train = prepared.rows("train")
    if not 2 <= params.batch_size <= len(train):
        raise StageError(
            f"{name}.batch_size is {params.batch_size}, the train split has {len(train)} images; "
            f"allowed: 2 to {len(train)}"
        )
    batches = Batches(prepared, train, params.batch_size, c.seed, shuffle=c.pretrain.shuffle)
    if advice := batches.advice():
        print(f"pretrain@{name}: {advice}", file=sys.stderr)
    started_from = init_digest(params)
    how = {"precision": c.pretrain.precision, "shuffle": c.pretrain.shuffle}
    identity = {
        "params": {name: asdict(params), "seed": c.seed, "pretrain": how},
        "data": m.digest,
        "code": code(name),
        "torch": torch.__version__,
        "init": started_from,
    }
    checkpoints = Checkpoints(name, identity)
    method = methods.build(name, params, m.preprocess.size, m.mean, m.std, c.seed)
    if said := apply(method, params, name):
        print(said)
    live = LiveRun(c.dataset, name, checkpoints.run)
    try:
        with hardware.device() as device:
            train_method(name, method, params, c.pretrain, batches, checkpoints, device, live.log)
        if not all(v.isfinite().all() for v in method.encoder.state_dict().values()):
            raise StageError(f"the encoder is not finite at the end; lower {name}.optim.lr (now {params.optim.lr})")
    except StageError:
        live.fail()
        raise
    live.close()
    write_atomically(
        stage.artifact(name, "checkpoint.pt"),
        {
            "weights": {k: v.cpu().contiguous() for k, v in method.encoder.state_dict().items()},
            "spec": {
                "method": name,
                "dataset": c.dataset,
                "data_digest": m.digest,
                "image_size": m.preprocess.size,
                "preprocess": m.preprocess.to_json(),
                "encoder": asdict(params.encoder),
                "init_digest": started_from,
            },
            "run_id": live.id,
        },
    )
    shutil.copyfile(checkpoints.history, stage.artifact(name, "history.jsonl"))
    checkpoints.clear()


def train_method(
    name: str,
    method: Method,
    params: MethodParams,
    how: PretrainParams,
    batches: Batches,
    checkpoints: Checkpoints,
    device: torch.device,
    log: Callable[[Row], None],
) -> None:
    """The loop. Resumes from the last checkpoint, leaves the trained method in place.

    Raises StageError when the loss is not finite; on SIGTERM or Ctrl-C it saves and exits with TRY_AGAIN.
    """
    assert isinstance(method, nn.Module)
    smallest = smallest_view(params, batches.prepared.manifest.preprocess.size)
    dtype = hardware.precision(how.precision, device, method.encoder, smallest)
    layout = hardware.layout(method.encoder)
    method.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    optimizer = optim.build(params.optim, method)
    trainable = [p for p in method.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(batches.seed)
    steps = params.epochs * len(batches)
    first = 0
    if state := checkpoints.load():
        method.load_state_dict(state["method"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        first = state["step"]
    stop = catch_signals()
    saved = logged = time.monotonic()
    method.train()
    with Progress(steps * params.batch_size, f"pretrain@{name}", "images", first * params.batch_size) as progress:
        since = first
        for step, images in enumerate(stream(batches, params.epochs, first), first):
            done = step / steps
            lr = optim.set_schedule(optimizer, params.optim, params.batch_size, done)
            views = method.views(images.to(device, non_blocking=True), generator)
            views = [v.contiguous(memory_format=layout) if v.ndim == 4 else v for v in views]
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = method.loss(views, done)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(trainable, params.optim.clip or math.inf)
            optimizer.step()
            method.after_step(done)
            progress.advance(len(images))
            if (step + 1) % how.log_every == 0 or step + 1 == steps:
                value, now = loss.item(), time.monotonic()
                for what, figure in (("loss", value), ("gradient's norm", norm.item())):
                    if not math.isfinite(figure):
                        raise StageError(
                            f"the {what} is {figure} at step {step + 1} of {steps}; "
                            f"lower {name}.optim.lr (now {params.optim.lr})"
                        )
                rate = (step + 1 - since) * params.batch_size / max(1e-9, now - logged)
                row = {
                    "step": step + 1,
                    "epoch": (step + 1) / len(batches),
                    "loss": value,
                    "lr": lr,
                    "grad_norm": norm.item(),
                    "images_per_second": rate,
                }
                checkpoints.append(row)
                log(row)
                progress.advance(0, loss=f"{value:.3f}")
                logged, since = now, step + 1
            due = time.monotonic() - saved > 60 * how.checkpoint_minutes
            if due or stop():
                checkpoints.save(
                    {
                        "step": step + 1,
                        "method": method.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "generator": generator.get_state(),
                    }
                )
                saved = time.monotonic()
            if stop():
                print(f"pretrain@{name}: stopped at step {step + 1}; run the same command to go on", file=sys.stderr)
                sys.exit(TRY_AGAIN)


def smallest_view(params: MethodParams, size: int) -> int:
    """Side of the smallest view, px."""
    return min(size, params.local_size) if isinstance(params, DINOParams) and params.local_crops else size


def stream(batches: Batches, epochs: int, first: int) -> Iterator[Tensor]:
    """The batches of all epochs from step `first` on."""
    for epoch in range(first // len(batches), epochs):
        yield from batches.epoch(epoch, first % len(batches) if epoch == first // len(batches) else 0)


def catch_signals() -> Callable[[], bool]:
    """After this SIGTERM and Ctrl-C only set what the returned function reports."""
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: received.append(number))
    return lambda: bool(received)


if __name__ == "__main__":
    stage.run(f"pretrain@{sys.argv[1]}", lambda: main(sys.argv[1]))
