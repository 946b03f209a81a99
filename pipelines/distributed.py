"""One training in many processes: those of `pretrain.processes`, or torchrun's, over many machines.

In one process the same functions do the same.
"""

import math
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from models import parallel
from models.methods import Method
from models.vit import Block
from pipelines import hardware
from pipelines.stage import TRY_AGAIN

GRACE = 30.0  # s that the other ranks have when one has failed
State = dict[str, Any]
T = TypeVar("T")
Loss = Callable[[list[Tensor], float, bool], Tensor]  # views, progress, and whether the gradient is complete after it


def launch(processes: int) -> int:
    """This command again, once a rank, on this machine: what torchrun does, but SIGTERM's exit code comes through.

    Ends when all have ended, or one has failed: its exit code.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, hardware.cores() // processes))),
    }
    command = [sys.executable, *sys.orig_argv[1:]]
    with hardware.gpus(processes):
        ranks = [
            subprocess.Popen(command, env=os.environ | meeting | {"RANK": str(i), "LOCAL_RANK": str(i)})
            for i in range(processes)
        ]

        def pass_on(*_: object) -> None:
            for rank in ranks:
                rank.terminate()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, pass_on)
        failed, ending = 0, math.inf
        while running := [rank for rank in ranks if rank.poll() is None]:
            if failed := failed or next((r.returncode for r in ranks if r.returncode not in (None, 0, TRY_AGAIN)), 0):
                ending = min(ending, time.monotonic() + GRACE)
                for rank in running:
                    rank.terminate() if time.monotonic() < ending else rank.kill()
            with suppress(subprocess.TimeoutExpired):
                running[0].wait(1)
    return failed or max(rank.returncode for rank in ranks)


def to_the_end(work: Callable[[], None]) -> None:
    """Do the work of a process, and as one of several leave at once when it is done.

    At the interpreter's own end gloo's threads wait for its lock, and it for them: for ever, if luck is bad.
    """
    if not started():
        return work()
    code: Any = 1
    try:
        work()
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def size(processes: int) -> int:
    """Processes that share a batch: `pretrain.processes`, unless they are started already."""
    return int(os.environ["WORLD_SIZE"]) if started() else processes


def guarded() -> bool:
    """Whether nobody else may do the same: the only process, or rank 0 of torchrun; `launch` sees to its ranks."""
    return not started() or ("TORCHELASTIC_RUN_ID" in os.environ and first())


def started() -> bool:
    """Whether this process is a rank: of `launch`, or of torchrun."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def first() -> bool:
    """Whether this process speaks and writes: the only one, or rank 0."""
    return int(os.environ.get("RANK", "0")) == 0 if started() else True


@contextmanager
def joined() -> Iterator[torch.device]:
    """The device of this process, all ranks joined; only rank 0 speaks."""
    if not started():
        with hardware.device() as device:
            yield device
        return
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    if not first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    try:
        yield device
    finally:
        dist.destroy_process_group()


def agreed(wish: bool) -> bool:
    """Whether any rank wishes it: the same answer on all, without waiting for the device."""
    if parallel.world() == 1:
        return wish
    flag = torch.tensor(int(wish))
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def spread(method: Method, sharded: bool) -> Loss:
    """The method's loss, so that its gradient is the mean over the ranks: replicas, or (FSDP2) sharded parameters."""
    assert isinstance(method, nn.Module)
    if parallel.world() == 1:
        return lambda views, progress, _: method.loss(views, progress)
    if sharded:
        for module in method.modules():
            if isinstance(module, Block):
                fully_shard(module)
        shards = fully_shard(method)
        register_fsdp_forward_method(method, "loss")

        def loss_of_shards(views: list[Tensor], progress: float, complete: bool) -> Tensor:
            shards.set_requires_gradient_sync(complete)
            return method.loss(views, progress)

        return loss_of_shards
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # the new name is not in torch 2.11
        replica = DistributedDataParallel(_Loss(method), broadcast_buffers=False)

    def loss_of_replica(views: list[Tensor], progress: float, complete: bool) -> Tensor:
        replica.require_backward_grad_sync = complete
        return replica(views, progress)  # type: ignore[no-any-return]

    return loss_of_replica


def within(method: Method, work: Callable[[], T]) -> T:
    """What work() gives, without a gradient, while the method's parameters are whole; every rank must call it."""
    if not isinstance(method, FSDPModule):
        return work()
    shards = cast(Any, method)
    shards.work = work  # FSDP2 gathers for a method that it knows of
    register_fsdp_forward_method(shards, "work")
    try:
        return cast(T, shards.work())
    finally:
        del shards.work
        shards.reshard()


class _Loss(nn.Module):
    """A method whose forward is its loss."""

    def __init__(self, method: nn.Module):
        super().__init__()
        self.method = method

    def forward(self, views: list[Tensor], progress: float) -> Tensor:
        return self.method.loss(views, progress)  # type: ignore[operator, no-any-return]


WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def state(method: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Whole and on the CPU, keyed by names, whatever the number of processes; every rank must call it."""
    weights, moments = get_state_dict(method, optimizer, options=WHOLE)
    return {"method": weights, "optimizer": moments}


def restore(method: nn.Module, optimizer: torch.optim.Optimizer, saved: State) -> None:
    """The inverse of `state`."""
    set_model_state_dict(method, saved["method"], options=WHOLE)
    set_optimizer_state_dict(method, optimizer, saved["optimizer"], options=replace(WHOLE, strict=False))
    for name, p in method.named_parameters():
        if name not in saved["optimizer"]["state"]:  # it had no gradient yet, as DINO's last layer at first
            optimizer.state.pop(p, None)


def whole(module: nn.Module) -> dict[str, Tensor]:
    """A module's weights, whole and on the CPU; empty on other ranks than the first; every rank must call it."""
    weights = cast(dict[str, Tensor], get_model_state_dict(module, options=WHOLE))
    return {k: v.contiguous() for k, v in weights.items()}


def from_first(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    if parallel.world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]
