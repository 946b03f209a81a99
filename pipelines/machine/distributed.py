"""One training run in many processes: those of `pretrain.processes`, or torchrun's, over many machines.

In one process the same functions do the same.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only

from models import parallel
from models.encoders.vit import Block
from models.method import Method
from pipelines.machine import gpus
from pipelines.machine.ranks import LAUNCHED, first, started

State = dict[str, Any]
T = TypeVar("T")
Loss = Callable[[list[Tensor], float, bool], Tensor]  # views, progress, and whether the gradient is complete after it


@contextmanager
def joined() -> Iterator[torch.device]:
    """The device of this process, all ranks joined until they end (`to_the_end`); only rank 0 speaks."""
    if not started():
        with gpus.device() as device:
            yield device
        return
    with own() as device:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        if not first():
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
        yield device


@contextmanager
def own() -> Iterator[torch.device]:
    """The device of this rank: the GPU of its number, locked by `launch` or here."""
    if not torch.cuda.is_available():
        yield torch.device("cpu")
        return
    i = int(os.environ["LOCAL_RANK"])
    with nullcontext() if LAUNCHED in os.environ else gpus.only(i):
        torch.cuda.set_device(i)
        yield torch.device("cuda", i)


def agreed(wish: bool) -> bool:
    """Whether any rank wishes it: the same answer on all, without waiting for the device."""
    if parallel.world() == 1:
        return wish
    flag = torch.tensor(int(wish))
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def spread(method: Method, sharded: bool, bf16: bool) -> Loss:
    """The method's loss, so that its gradient is the mean over the ranks: replicas, or (FSDP2) sharded parameters.

    bf16: the products are, so that transformer blocks are gathered in it, half as many bytes; what is added up between
    the blocks, and the gradients' sum over the ranks, stay fp32.
    """
    if parallel.world() == 1:
        return lambda views, progress, _: method.loss(views, progress)
    if sharded:
        policy = MixedPrecisionPolicy()
        if bf16:
            policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        for module in method.modules():
            if isinstance(module, Block):
                fully_shard(module, mp_policy=policy)
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


def within(method: Method, work: Callable[[], T], device: torch.device, bf16: bool) -> T:
    """What work() gives, without a gradient, while the method's parameters are whole; every rank must call it.

    bf16: as given to `spread`; what is gathered in bf16 is multiplied in it.
    """
    if not isinstance(method, FSDPModule):
        return work()
    shards = cast(Any, method)
    shards.work = work  # FSDP2 gathers for a method that it knows of
    register_fsdp_forward_method(shards, "work")
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
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
    """A copy, whole and on the CPU, keyed by names, whatever the number of processes; every rank must call it.

    Only rank 0 gets the tensors.
    """
    weights, moments = get_state_dict(method, optimizer, options=WHOLE)
    found: State = {"method": weights, "optimizer": moments}
    if next(method.parameters()).device.type == "cpu":  # there they are the training's own, which goes on
        found = tree_map_only(Tensor, Tensor.clone, found)
    return found


def restore(method: nn.Module, optimizer: torch.optim.Optimizer, saved: State | None) -> None:
    """The inverse of `state`: rank 0 has `saved`, which this uses up, and sends it tensor by tensor.

    Every rank must call it.
    """
    many = parallel.world() > 1
    options = replace(WHOLE, cpu_offload=False, broadcast_from_rank0=many)
    known = from_first(list(saved["optimizer"]["state"]) if saved else None)
    set_model_state_dict(method, saved["method"] if saved else {}, options=options)
    moments = saved["optimizer"] if saved else {}
    set_optimizer_state_dict(method, optimizer, moments, options=replace(options, strict=False))
    for name, p in method.named_parameters():
        if name not in known:  # it had no gradient yet, as DINO's last layer at first
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
