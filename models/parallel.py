"""One batch over many processes: differentiable exchange between ranks. In one process, nothing happens."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.precision import at_least_fp32


def world() -> int:
    """The number of processes that share the batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if world() > 1 else 0


def gather(x: Tensor) -> Tensor:
    """(n, …) of this rank → (world·n, …) of all, in order of rank. The gradient is the sum over the ranks' losses."""
    return _Gather.apply(x) if world() > 1 else x  # type: ignore[no-untyped-call]


def total(x: Tensor) -> Tensor:
    """Sum over the ranks; its gradient is summed in the same way."""
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


class _Normalize(torch.autograd.Function):
    """x (n, C, …) → normalised x, mean (C,), variance (C,) over all ranks. For the backward pass it keeps x alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide, n = at_least_fp32(x), count(x)
        center = summed(wide) / n
        centered = wide - like(center, x)
        variance = summed(centered.square()) / n
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, center, inverse)
        ctx.biased = bias is not None
        ctx.mark_non_differentiable(center, variance)
        y = centered * like(inverse if weight is None else inverse * weight, x)
        return (y if bias is None else y + like(bias, x)).to(x.dtype), center, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, center, inverse = ctx.saved_tensors
        wide, n = at_least_fp32(gradient), count(x)
        normal = (at_least_fp32(x) - like(center, x)) * like(inverse, x)
        own = torch.stack([wide.sum(over(x)), (wide * normal).sum(over(x))])  # the gradients of bias and weight
        mean = own.clone()
        dist.all_reduce(mean)
        mean = mean / n
        slope = wide - like(mean[0], x) - normal * like(mean[1], x)
        slope = slope * like(inverse if weight is None else inverse * weight, x)
        return slope.to(x.dtype), None if weight is None else own[1], own[0] if ctx.biased else None, None


def over(x: Tensor) -> list[int]:
    """All axes of (n, C, …) but that of the channels."""
    return [0, *range(2, x.ndim)]


def count(x: Tensor) -> int:
    """Values per channel, over all ranks."""
    return x.numel() // x.shape[1] * world()


def summed(x: Tensor) -> Tensor:
    """(n, C, …) → (C,), over all ranks, without a gradient."""
    sums = x.sum(over(x))
    dist.all_reduce(sums)
    return sums


def like(channels: Tensor, x: Tensor) -> Tensor:
    """(C,), beside (n, C, …)."""
    return channels.view(1, -1, *[1] * (x.ndim - 2))


class GlobalBatchNorm(_BatchNorm):
    """Batch norm over the batch of all ranks.

    torch's SyncBatchNorm does not run on a CPU, and on a GPU it breaks a compiled ResNet into 30 to 50 graphs: it
    selects what to count by a mask, whose size the host must wait for.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        y, center, variance = _Normalize.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
                self.running_mean.lerp_(center.to(self.running_mean.dtype), momentum)
                unbiased = variance * (count(x) / (count(x) - 1))
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        return y  # type: ignore[no-any-return]


def synchronise(module: nn.Module) -> nn.Module:
    """Make every batch norm in it use the batch of all ranks. Names and values stay the same."""
    if world() == 1:
        return module
    for m in list(module.modules()):
        for name, child in m.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                norm = GlobalBatchNorm(child.num_features, child.eps, child.momentum)
                norm._parameters, norm._buffers = child._parameters, child._buffers
                m.add_module(name, norm)
    return module
