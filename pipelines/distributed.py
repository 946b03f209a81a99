"""One training in many processes, as torchrun starts them: `torchrun --nproc-per-node 8 -m pipelines.pretrain simclr`.

Alone, without torchrun, the same functions do the same for one process.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from models import parallel
from models.methods import Method
from models.vit import Block
from pipelines import hardware

State = dict[str, Any]
Loss = Callable[[list[Tensor], float, bool], Tensor]  # views, progress, and whether the gradient is complete after it


def started() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def first() -> bool:
    """Whether this process speaks and writes: the only one, or rank 0."""
    return int(os.environ.get("RANK", "0")) == 0 if started() else True


@contextmanager
def joined() -> Iterator[torch.device]:
    """The device of this process, all processes of torchrun joined; only rank 0 speaks."""
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
    replica = DistributedDataParallel(_Loss(method), broadcast_buffers=False)

    def loss_of_replica(views: list[Tensor], progress: float, complete: bool) -> Tensor:
        replica.require_backward_grad_sync = complete
        return replica(views, progress)  # type: ignore[no-any-return]

    return loss_of_replica


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
    set_state_dict(
        method, optimizer, model_state_dict=saved["method"], optim_state_dict=saved["optimizer"], options=WHOLE
    )


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
