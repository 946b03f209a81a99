"""One batch over many processes: what a loss needs of the other ranks, differentiable; alone, nothing happens."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.precision import at_least_fp32


def world() -> int:
    """Processes that share the batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if world() > 1 else 0


def gather(x: Tensor) -> Tensor:
    """(n, …) of this rank → (world·n, …) of all, in order of rank. The gradient is the sum over the ranks' losses."""
    return _Gather.apply(x) if world() > 1 else x  # type: ignore[no-untyped-call]


def total(x: Tensor) -> Tensor:
    """Sum over the ranks; its gradient likewise."""
    return _Total.apply(x) if world() > 1 else x  # type: ignore[no-untyped-call]


@torch.no_grad()
def mean(x: Tensor) -> Tensor:
    """Mean over the ranks, without a gradient."""
    return total(x) / world()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.new_empty(world() * len(x), *x.shape[1:])
        dist.all_gather(list(out.chunk(world())), x.contiguous())
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return summed.chunk(world())[rank()]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.contiguous().clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient)


class GlobalBatchNorm(_BatchNorm):
    """Batch norm over the batch of all ranks, on a CPU, where torch's SyncBatchNorm does not run."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        over = [0, *range(2, x.ndim)]
        n = x.numel() // x.shape[1] * world()
        wide = at_least_fp32(x)
        centre = total(wide.sum(over)) / n
        shape = [1, -1] + [1] * (x.ndim - 2)
        difference = wide - centre.view(shape)
        variance = total(difference.square().sum(over)) / n
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
                self.running_mean.lerp_(centre.to(self.running_mean.dtype), momentum)
                self.running_var.lerp_((variance * (n / (n - 1))).to(self.running_var.dtype), momentum)
        y = difference * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            y = y * self.weight.view(shape)
        return (y if self.bias is None else y + self.bias.view(shape)).to(x.dtype)


def synchronise(module: nn.Module, device: torch.device) -> nn.Module:
    """Every batch norm in it sees the batch of all ranks; names and values stay."""
    if world() == 1:
        return module
    if device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-any-return, no-untyped-call]
    for m in list(module.modules()):
        for name, child in m.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                norm = GlobalBatchNorm(child.num_features, child.eps, child.momentum)
                norm._parameters, norm._buffers = child._parameters, child._buffers
                m.add_module(name, norm)
    return module
