"""Optimisers: LARS, gradient clipping, parameter groups, and schedules as pure functions of progress in [0, 1]."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class OptimParams:
    """`lr` is the published base rate; `lr_scaling` says how the batch size enters it."""

    name: Literal["lars", "sgd", "adamw"]  # optimiser
    lr: float  # base learning rate, as published
    weight_decay: float  # weight decay of weights; biases and norms have none
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"  # rate at batch B: lr, lr·B/256, lr·√B (SimCLR, app. B.1)
    lr_end: float = 0.0  # learning rate at the end of the run
    lr_shape: Literal["cosine", "fixmatch"] = "cosine"  # curve after warm-up: to lr_end, or FixMatch's to 0.195 lr
    weight_decay_end: float | None = None  # weight decay at the end, reached along a cosine; null: constant
    warmup: float = 0.0  # share of the run in which the rate rises from 0
    momentum: float = 0.9  # momentum of LARS and SGD
    trust: float = 0.001  # trust coefficient η of LARS
    trust_clip: bool = False  # LARS by solo-learn's rule: no layer's own rate above lr
    betas: tuple[float, float] = (0.9, 0.999)  # coefficients β₁ and β₂ of AdamW
    clip: float | None = None  # largest norm of the whole gradient; null: no limit
    clip_each: float | None = None  # largest norm of each parameter's own gradient (DINO); null: no limit
    layer_decay: float = 1.0  # factor on the learning rate per block or stage, counted from the head (Clark 2020)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}. Allowed: a number above 0")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}, a fraction of the run. Allowed: 0 to below 1")
        if not all(0 <= b < 1 for b in (*self.betas, self.momentum)):
            raise ValueError(f"betas is {list(self.betas)}, momentum {self.momentum}. Allowed: 0 to below 1")
        if self.trust <= 0:
            raise ValueError(f"trust is {self.trust}. Allowed: a number above 0")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is {self.layer_decay}. Allowed: above 0, to 1")
        for name in ("clip", "clip_each"):
            if (norm := getattr(self, name)) is not None and norm <= 0:
                raise ValueError(f"{name} is {norm}. Allowed: a number above 0, or null")
        if self.lr_shape == "fixmatch" and self.lr_end:
            raise ValueError(
                f"lr_end is {self.lr_end} and lr_shape fixmatch, which ends at 0.195 lr. Allowed: lr_end 0"
            )
        if self.clip is not None and self.clip_each is not None:
            raise ValueError(f"clip is {self.clip} and clip_each {self.clip_each}. Allowed: one of the two")

    def peak_lr(self, batch_size: int) -> float:
        """The learning rate after warm-up: `lr`, scaled by the batch size over all processes."""
        factor = {"none": 1.0, "linear": batch_size / 256, "sqrt": math.sqrt(batch_size)}
        return self.lr * factor[self.lr_scaling]


def cosine(start: float, end: float, progress: float) -> float:
    """From start to end along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def ramp(start: float, end: float, share: float, progress: float) -> float:
    """Linear from start to end during this share of the run, then the end."""
    return start + (min(1.0, progress / share) if share else 1.0) * (end - start)


def warmup_cosine(peak: float, end: float, warmup: float, progress: float) -> float:
    """Linear from 0 to the peak during warm-up, then a cosine to the end."""
    if progress < warmup:
        return peak * progress / warmup
    return cosine(peak, end, (progress - warmup) / (1 - warmup))


def warmup_fixmatch(peak: float, warmup: float, progress: float) -> float:
    """Linear from 0 to the peak during warm-up, then peak · cos(7π k / 16 K) (FixMatch, section 2.4)."""
    if progress < warmup:
        return peak * progress / warmup
    return peak * math.cos(7 * math.pi / 16 * (progress - warmup) / (1 - warmup))


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (You et al., 2017, arXiv:1708.03888) with momentum, by one of two rules.

    u = g + λp is a layer's update, λ its weight decay. A group with `adapt=False` (biases, batch norm) has r = 1.
    SimCLR's code, the momentum holds the learning rate: r = η ‖p‖ / ‖u‖, v ← μv + lr r u, p ← p − v.
    `trust_clip`, solo-learn's code (solo/utils/lars.py at 9187ea3, `clip_lr`), it does not:
    r = min(η ‖p‖ / ((‖g‖ + λ‖p‖ + 1e-8) lr), 1), v ← μv + r u, p ← p − lr v.
    Where a norm in r is 0, r = 1; solo-learn leaves out the weight decay too.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        trust: float = 0.001,
        trust_clip: bool = False,
    ):
        own = {"lr": lr, "momentum": momentum, "trust": trust, "trust_clip": trust_clip}
        super().__init__(params, own | {"weight_decay": 0.0, "adapt": True})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        if closure is not None:
            raise TypeError("LARS takes no closure")
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            updates = torch._foreach_add([p.grad for p in params], params, alpha=group["weight_decay"])
            for p in params:
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            momenta = [self.state[p]["momentum"] for p in params]
            torch._foreach_mul_(momenta, group["momentum"])
            held, later = (1.0, group["lr"]) if group["trust_clip"] else (group["lr"], 1.0)  # where the rate comes in
            if group["adapt"]:
                ratios = (self.clipped if group["trust_clip"] else self.ratios)(group, params, updates)
                torch._foreach_addcmul_(momenta, updates, ratios, value=held)
            else:
                torch._foreach_add_(momenta, updates, alpha=held)
            torch._foreach_sub_(params, momenta, alpha=later)
        return None

    @staticmethod
    def ratios(group: dict[str, Any], params: list[Tensor], updates: tuple[Tensor, ...]) -> list[Tensor]:
        """SimCLR's r of each parameter; 1 where p or u is 0."""
        p_norms, u_norms = (torch.stack(torch._foreach_norm(x)) for x in (params, updates))
        ratios = group["trust"] * p_norms / u_norms
        return list(torch.where((p_norms > 0) & (u_norms > 0), ratios, 1.0).unbind())

    @staticmethod
    def clipped(group: dict[str, Any], params: list[Tensor], updates: tuple[Tensor, ...]) -> list[Tensor]:
        """solo-learn's r of each parameter; where g is 0 the update is weight decay alone, which they leave out."""
        gradients = [p.grad for p in params if p.grad is not None]  # of all of them
        p_norms, g_norms = (torch.stack(torch._foreach_norm(x)) for x in (params, gradients))
        ratios = group["trust"] * p_norms / (g_norms + group["weight_decay"] * p_norms + 1e-8)
        ratios = (ratios / group["lr"]).clamp(max=1)
        return list(torch.where(p_norms > 0, torch.where(g_norms > 0, ratios, 0.0), 1.0).unbind())


@torch.no_grad()
def clip(params: OptimParams, parameters: Iterable[Tensor]) -> Tensor:
    """Clip the gradients as `params` says. Returns the norm of the whole gradient before, without waiting for it.

    `clip` scales all by min(1, c / (‖g‖ + 1e-6)), `clip_each` each parameter's gradient by its own norm
    (DINO's official code). Of sharded parameters (FSDP2) norms are those of the whole parameters.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    total: Tensor = torch.linalg.vector_norm(norms)
    if params.clip_each is not None:
        torch._foreach_mul_(gradients, list((params.clip_each / (norms + 1e-6)).clamp(max=1).unbind()))
    elif params.clip is not None:
        torch._foreach_mul_(gradients, (params.clip / (total + 1e-6)).clamp(max=1))
    return whole(total)


@torch.no_grad()
def norm(parameters: Iterable[Tensor]) -> Tensor:
    """The norm of all parameters as one vector, also when they are sharded (FSDP2)."""
    return whole(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(parameters)))))


def whole(total: Tensor) -> Tensor:
    """A sharded sum, completed over all shards."""
    full: Callable[[], Tensor] | None = getattr(total, "full_tensor", None)  # a DTensor's
    return full() if full else total


BLOCK = re.compile(r"(?:^|\.)(?:blocks\.(\d+)|layer(\d))\.")
STEM = re.compile(r"(?:^|\.)(?:patch_embed|cls_token|pos_embed|conv1|bn1)(?:\.|$)")
TOKEN = re.compile(r"(?:^|\.)(?:cls_token|pos_embed)$")


def layer_scales(layer_decay: float, names: Iterable[str]) -> dict[str, float]:
    """The factor on each parameter's learning rate: d^(L + 1 − k) in the k-th of L blocks or stages.

    The stem (patch embedding, class token, positions; a ResNet's first convolution) is k = 0; what comes after the last
    block, the final norm and the head, 1. Clark et al., 2020, arXiv:2003.10555, as MAE's official fine-tuning has it.
    """
    depths: dict[str, int | None] = {}
    for name in names:
        if found := BLOCK.search(name):
            depths[name] = int(found[1]) + 1 if found[1] else int(found[2])
        else:
            depths[name] = 0 if STEM.search(name) else None
    above = 1 + max((k for k in depths.values() if k is not None), default=-1)
    return {name: 1.0 if k is None else layer_decay ** (above - k) for name, k in depths.items()}


def build(params: OptimParams, module: nn.Module, spare_tokens: bool = False) -> torch.optim.Optimizer:
    """Optimiser over the trainable parameters; 1-d ones (biases, norms) get no weight decay, no LARS.

    MAE's pretraining (timm's add_weight_decay) and DINO (utils.get_params_groups) do the same. `spare_tokens`: a ViT's
    class token and positions get none either, as in MAE's fine-tuning (util/lr_decay.py) and timm (no_weight_decay).
    """
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    scales = layer_scales(params.layer_decay, trainable)
    spared = {name for name, p in trainable.items() if p.ndim <= 1 or (spare_tokens and TOKEN.search(name))}
    groups = [
        {
            "params": [p for name, p in trainable.items() if scales[name] == scale and (name not in spared) == decayed],
            "weight_decay": params.weight_decay if decayed else 0.0,
            "adapt": decayed,
            "scale": scale,
        }
        for scale in sorted(set(scales.values()))
        for decayed in (True, False)
    ]
    if params.name == "lars":
        return LARS(groups, params.lr, params.momentum, params.trust, params.trust_clip)
    if params.name == "sgd":
        sharded = any(hasattr(p, "full_tensor") for p in trainable.values())  # DTensors: fused SGD has no rule for them
        return torch.optim.SGD(groups, params.lr, params.momentum, fused=not sharded, foreach=sharded)
    return torch.optim.AdamW(groups, params.lr, params.betas, fused=True)


def set_schedule(optimizer: torch.optim.Optimizer, params: OptimParams, batch_size: int, progress: float) -> float:
    """Set learning rate and weight decay of all groups for this progress; returns the head's learning rate."""
    peak = params.peak_lr(batch_size)
    if params.lr_shape == "fixmatch":
        lr = warmup_fixmatch(peak, params.warmup, progress)
    else:
        lr = warmup_cosine(peak, params.lr_end, params.warmup, progress)
    end = params.weight_decay if params.weight_decay_end is None else params.weight_decay_end
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
        if group["adapt"]:
            group["weight_decay"] = cosine(params.weight_decay, end, progress)
    return lr
