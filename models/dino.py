"""DINO: Emerging Properties in Self-Supervised Vision Transformers.

Caron, Touvron, Misra, Jégou, Mairal, Bojanowski, Joulin, 2021, arXiv:2104.14294.
"""

import copy
import math
from dataclasses import dataclass, replace
from itertools import groupby
from typing import cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from models.encoder import Encoder, EncoderParams
from models.optim import OptimParams, cosine
from models.views import ViewParams, check_area, view


@dataclass(frozen=True)
class DINOParams:
    encoder: EncoderParams
    epochs: int
    batch_size: int
    optim: OptimParams
    global_area: tuple[float, float] = (0.4, 1.0)
    local_area: tuple[float, float] = (0.05, 0.4)
    local_crops: int = 8
    local_size: int = 96  # px
    flip: float = 0.5
    rotation: float = 0.0  # degrees; none in the paper
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)  # first global, second global, local views
    solarize: float = 0.2  # second global view
    head_hidden: int = 2048
    head_bottleneck: int = 256
    head_dim: int = 65536  # K
    head_batch_norm: bool = False
    norm_last_layer: bool = True
    freeze_last_layer: float = 0.01  # fraction of the run (one epoch of 100)
    student_temperature: float = 0.1  # τ_s
    teacher_temperature: float = 0.04  # τ_t
    warmup_teacher_temperature: float = 0.04  # where τ_t starts
    warmup_teacher: float = 0.3  # fraction of the run until it is reached
    momentum: float = 0.996  # λ of the teacher, cosine to 1
    center_momentum: float = 0.9  # m

    def __post_init__(self) -> None:
        for name in ("momentum", "center_momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 0 to 1")
        for name in ("student_temperature", "teacher_temperature", "warmup_teacher_temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: above 0")
        check_area("global_area", self.global_area)
        check_area("local_area", self.local_area)
        for name, least in (("local_crops", 0), ("local_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: {least} or more")
        _ = self.views  # a law that is impossible is named now

    @property
    def views(self) -> list[ViewParams]:
        first = ViewParams(
            area=self.global_area,
            flip=self.flip,
            rotation=self.rotation,
            jitter=0.8,
            strengths=(0.4, 0.4, 0.2, 0.1),
            grey=0.2,
            blur=self.blur[0],
            blur_kernel="pillow",
        )
        second = replace(first, blur=self.blur[1], solarize=self.solarize)
        local = replace(first, area=self.local_area, blur=self.blur[2])
        return [first, second, *[local] * self.local_crops]


class DINO(nn.Module):
    center: Tensor

    def __init__(self, encoder: Encoder, params: DINOParams, image_size: int):
        super().__init__()
        self.params = params
        self.size = image_size
        self.student = nn.ModuleDict({"encoder": encoder, "head": Head(encoder.dim, params)})  # g_θs
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)  # g_θt
        self.register_buffer("center", torch.zeros(params.head_dim))  # C

    @property
    def encoder(self) -> Encoder:
        """The teacher's: it is the better one throughout training (section 5.2)."""
        return cast(Encoder, self.teacher["encoder"])

    def views(self, images: Tensor, generator: Generator) -> list[Tensor]:
        """uint8 (B, 3, H, W) → two global views (B, 3, S, S), then the local ones (B, 3, s, s)."""
        sizes = [self.size] * 2 + [self.params.local_size] * self.params.local_crops
        return [view(images, s, law, generator) for s, law in zip(sizes, self.params.views, strict=True)]

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        p = self.params
        frozen = progress < p.freeze_last_layer
        features = torch.cat([self.student["encoder"](x) for x in by_size(views)])
        student = self.student["head"](features, frozen)
        with torch.no_grad():
            teacher = self.teacher["head"](self.teacher["encoder"](torch.cat(views[:2])))  # global views only
        n = views[0].shape[0]
        loss = distillation(
            student.view(len(views), n, -1), teacher.view(2, n, -1), self.center, p.student_temperature,
            self.temperature(progress),
        )  # fmt: skip
        self.center.lerp_(teacher.mean(dim=0), 1 - p.center_momentum)  # eq. 4
        return loss

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """θt ← λ θt + (1 − λ) θs."""
        momentum = cosine(self.params.momentum, 1.0, progress)
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum)

    def temperature(self, progress: float) -> float:
        """τ_t: linear warm-up, then constant."""
        p = self.params
        done = min(1.0, progress / p.warmup_teacher) if p.warmup_teacher else 1.0
        return p.warmup_teacher_temperature + done * (p.teacher_temperature - p.warmup_teacher_temperature)


class Head(nn.Module):
    """Projection head h (appendix C): 3-layer MLP with GELU, L2 bottleneck, weight-normalised last layer."""

    def __init__(self, dim: int, params: DINOParams):
        super().__init__()
        self.mlp = nn.Sequential()
        hidden = params.head_hidden
        for a, b in ((dim, hidden), (hidden, hidden)):
            self.mlp.append(nn.Linear(a, b, bias=not params.head_batch_norm))
            if params.head_batch_norm:
                self.mlp.append(nn.BatchNorm1d(b))
            self.mlp.append(nn.GELU())
        self.mlp.append(nn.Linear(hidden, params.head_bottleneck))
        self.direction = nn.Parameter(torch.empty(params.head_dim, params.head_bottleneck))  # v
        self.length = nn.Parameter(torch.ones(params.head_dim, 1), requires_grad=not params.norm_last_layer)  # g
        for m in self.mlp:
            if isinstance(m, nn.Linear):
                nn.init.trunc_normal_(m.weight, std=0.02)
                if m.bias is not None:
                    nn.init.zeros_(m.bias)
        nn.init.kaiming_uniform_(self.direction, a=math.sqrt(5))  # as nn.Linear: the official code leaves it so

    def forward(self, features: Tensor, frozen: bool = False) -> Tensor:
        """(B, D) → (B, K). Frozen: no gradient reaches the last layer."""
        z = F.normalize(self.mlp(features), dim=1)
        weight = self.length * F.normalize(self.direction, dim=1)
        logits = F.linear(z, weight.detach() if frozen else weight)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))  # also under bf16


def by_size(views: list[Tensor]) -> list[Tensor]:
    """Neighbouring views of one size in one batch, so that the encoder runs once a size."""
    return [torch.cat(list(group)) for _, group in groupby(views, key=lambda v: v.shape[-1])]


def distillation(
    student: Tensor, teacher: Tensor, center: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross-entropy H(P_t(x), P_s(x')), mean over pairs of a global view x and another view x' (eq. 3).

    student: (V, B, K); teacher: (2, B, K), of the first two views; center: (K,).
    """
    with torch.autocast(student.device.type, enabled=False):
        p_t = F.softmax((teacher - center) / teacher_temperature, dim=2)  # centring and sharpening
        log_p_s = F.log_softmax(student / student_temperature, dim=2)
        pairs = -torch.einsum("gbk,vbk->gv", p_t, log_p_s) / student.shape[1]  # (2, V)
    same = torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs.masked_fill(same, 0.0).sum() / (pairs.numel() - pairs.shape[0])
