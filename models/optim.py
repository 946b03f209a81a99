"""LARS, parameter groups and the schedules: pure functions of progress in [0, 1]."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class OptimParams:
    """`lr` is the published base rate; `lr_scaling` says how the batch size enters it."""

    name: Literal["lars", "sgd", "adamw"]
    lr: float
    weight_decay: float
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"  # lr, lr·B/256, lr·√B (SimCLR, appendix B.1)
    lr_end: float = 0.0
    weight_decay_end: float | None = None  # cosine from weight_decay to this; none: constant
    warmup: float = 0.0  # linear, as a fraction of the run
    momentum: float = 0.9  # LARS and SGD
    betas: tuple[float, float] = (0.9, 0.999)  # AdamW
    clip: float | None = None  # largest norm of the whole gradient

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}; allowed: above 0")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}, a fraction of the run; allowed: 0 to below 1")
        if not all(0 <= b < 1 for b in (*self.betas, self.momentum)):
            raise ValueError(f"betas is {list(self.betas)}, momentum {self.momentum}; allowed: 0 to below 1")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip is {self.clip}; allowed: above 0, or null")

    def peak_lr(self, batch_size: int) -> float:
        factor = {"none": 1.0, "linear": batch_size / 256, "sqrt": math.sqrt(batch_size)}
        return self.lr * factor[self.lr_scaling]


def cosine(start: float, end: float, progress: float) -> float:
    """From start to end along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def warmup_cosine(peak: float, end: float, warmup: float, progress: float) -> float:
    """Linear from 0 to the peak during warm-up, then a cosine to the end."""
    if progress < warmup:
        return peak * progress / warmup
    return cosine(peak, end, (progress - warmup) / (1 - warmup))


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (You et al., 2017, arXiv:1708.03888) with momentum.

    The momentum holds the learning rate, as in SimCLR's official code.
    A group with `adapt=False` (biases, batch norm) is plain SGD with momentum: the published exclusions.
    """

    def __init__(self, params: Iterable[dict[str, Any]], lr: float, momentum: float = 0.9, trust: float = 0.001):
        super().__init__(params, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": 0.0, "adapt": True})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        if closure is not None:
            raise TypeError("LARS takes no closure")
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                update = p.grad.add(p, alpha=group["weight_decay"])
                if group["adapt"]:
                    p_norm, u_norm = p.norm(), update.norm()
                    usable = (p_norm > 0) & (u_norm > 0)
                    update = update * torch.where(usable, group["trust"] * p_norm / u_norm, 1.0)
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                v: Tensor = state["momentum"].mul_(group["momentum"]).add_(update, alpha=group["lr"])
                p.sub_(v)
        return None


def build(params: OptimParams, module: nn.Module) -> torch.optim.Optimizer:
    """Optimiser over the trainable parameters; 1-d ones (biases, norms) get no weight decay, no LARS."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": params.weight_decay, "adapt": True},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0, "adapt": False},
    ]
    if params.name == "lars":
        return LARS(groups, params.lr, params.momentum)
    if params.name == "sgd":
        return torch.optim.SGD(groups, params.lr, params.momentum)
    return torch.optim.AdamW(groups, params.lr, params.betas, fused=True)


def set_schedule(optimizer: torch.optim.Optimizer, params: OptimParams, batch_size: int, progress: float) -> float:
    """Write learning rate and weight decay for this progress into the groups; returns the learning rate."""
    lr = warmup_cosine(params.peak_lr(batch_size), params.lr_end, params.warmup, progress)
    end = params.weight_decay if params.weight_decay_end is None else params.weight_decay_end
    for group in optimizer.param_groups:
        group["lr"] = lr
        if group["adapt"]:
            group["weight_decay"] = cosine(params.weight_decay, end, progress)
    return lr
