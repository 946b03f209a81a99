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

from models import parallel
from models.encoders.encoder import Encoder, EncoderParams
from models.encoders.resnet import ResNetParams
from models.encoders.vit import ViT
from models.optim import OptimParams, cosine
from models.precision import at_least_fp32, full_precision
from models.views.augmentation import ViewParams, augment, check_area, draw


@dataclass(frozen=True)
class DINOParams:
    encoder: EncoderParams
    epochs: int
    batch_size: int
    optim: OptimParams
    accumulate: int = 1  # parts in which a batch is computed
    recompute: bool = False  # transformer blocks again in the backward pass: less memory, one more forward pass
    global_area: tuple[float, float] = (0.4, 1.0)
    local_area: tuple[float, float] = (0.05, 0.4)
    local_crops: int = 8
    local_size: int = 96  # px
    drop_path: float = 0.0  # stochastic depth of the student, linear over depth; the official ViT recipes: 0.1
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
        if not 0 <= self.drop_path < 1 or (self.drop_path and isinstance(self.encoder, ResNetParams)):
            raise ValueError(f"drop_path is {self.drop_path}; allowed: 0 to below 1 for a vision transformer, else 0")
        if self.accumulate > 1 and (self.head_batch_norm or isinstance(self.encoder, ResNetParams)):
            raise ValueError(f"accumulate is {self.accumulate}; allowed: 1, since batch norm sees the whole batch")
        if self.recompute and isinstance(self.encoder, ResNetParams):
            raise ValueError("recompute is true; allowed: false for a ResNet, which has no transformer blocks")
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
        self.augment = augment
        self.student = nn.ModuleDict({"encoder": encoder, "head": Head(encoder.dim, params)})  # g_θs
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)  # g_θt
        self.register_buffer("center", torch.zeros(params.head_dim))  # C
        self.teacher_means: list[Tensor] = []  # of the parts of this step, for the next centre

    @property
    def encoder(self) -> Encoder:
        """The teacher's: it is the better one throughout training (section 5.2)."""
        return cast(Encoder, self.teacher["encoder"])

    def draw(self, n: int, height: int, width: int, generator: Generator) -> list[Tensor]:
        """Every view of n images, then with stochastic depth what the student keeps of each."""
        laws = [draw(n, height, width, law, generator) for law in self.params.views]
        return laws + [self.draw_keep(n, generator) for _ in laws if self.params.drop_path]

    def draw_keep(self, n: int, generator: Generator) -> Tensor:
        encoder = self.encoder
        assert isinstance(encoder, ViT)
        return encoder.draw_keep(n, self.params.drop_path, generator)

    def views(self, images: Tensor, draws: list[Tensor]) -> list[Tensor]:
        """uint8 (B, 3, H, W) → two global views (B, 3, S, S), then the local ones (B, 3, s, s); then what is kept."""
        laws = self.params.views
        sizes = [self.size] * 2 + [self.params.local_size] * self.params.local_crops
        views = [self.augment(images, d, s, law) for d, s, law in zip(draws, sizes, laws, strict=False)]
        return views + draws[len(laws) :]

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        student, teacher = self.outputs(views)
        self.teacher_means.append(teacher.flatten(0, 1).mean(dim=0))
        return self.distil(student, teacher, progress)

    def outputs(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Of the student (V, B, K), and of the teacher, which sees the global views only (2, B, K)."""
        crops = 2 + self.params.local_crops
        views, keep = views[:crops], views[crops:]
        inputs = by_size(list(zip(views, keep, strict=True)) if keep else [(x,) for x in views])
        student = self.student["head"](torch.cat([self.student["encoder"](*x) for x in inputs]))
        with torch.no_grad():
            teacher = self.teacher["head"](self.teacher["encoder"](torch.cat(views[:2])))
        n = views[0].shape[0]
        return student.view(crops, n, -1), teacher.view(2, n, -1)

    def distil(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        return distillation(student, teacher, self.center, self.params.student_temperature, self.temperature(progress))

    def signals(self, views: list[Tensor], progress: float) -> dict[str, Tensor]:
        """How it does on B held-out images, without labels and without stochastic depth; gain and KL in nats."""
        student, teacher = self.outputs(views[: 2 + self.params.local_crops])
        loss = self.distil(student, teacher, progress)
        p_t = F.softmax((teacher - self.center) / self.temperature(progress), dim=2).flatten(0, 1)  # (2B, K)
        each, together = (torch.special.entr(p).sum(dim=-1).mean() for p in (p_t, p_t.mean(dim=0)))
        ln_k = math.log(p_t.shape[1])
        return {
            "held_out_loss": loss,
            "relative_loss": loss / ln_k,  # 1: the student knows nothing
            "teacher_entropy": each / ln_k,  # 1: every output is uniform
            "mean_teacher_entropy": together / min(ln_k, math.log(len(p_t))),  # 0: every output is the same
            "kl": loss - each,  # KL(P_t ‖ P_s)
            "gain": together - loss,  # what a teacher's output says of its image, as far as the student knows it
        }

    def before_step(self, progress: float) -> None:
        """The last layer waits for an epoch: no gradient, no weight decay."""
        if progress < self.params.freeze_last_layer:
            for p in cast(Head, self.student["head"]).last_layer():
                p.grad = None

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """C ← m C + (1 − m) mean of the batch's teacher outputs (eq. 4); θt ← λ θt + (1 − λ) θs."""
        batch_mean = parallel.mean(torch.stack(self.teacher_means).mean(dim=0))
        self.center.lerp_(batch_mean, 1 - self.params.center_momentum)
        self.teacher_means.clear()
        momentum = cosine(self.params.momentum, 1.0, progress)
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum)

    def temperature(self, progress: float) -> float:
        """τ_t: linear warm-up, then constant."""
        p = self.params
        done = min(1.0, progress / p.warmup_teacher) if p.warmup_teacher else 1.0
        return p.warmup_teacher_temperature + done * (p.teacher_temperature - p.warmup_teacher_temperature)


class Head(nn.Module):
    """Projection head h (appendix C): 3-layer MLP with GELU, L2 bottleneck, weight-normalised last layer.

    The last layer is computed in fp32 at least: divided by τ_t, 0.04, bf16's rounding would be 0.05 nats.
    """

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

    def last_layer(self) -> list[nn.Parameter]:
        return [self.direction, self.length]

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) → (B, K)."""
        z = self.mlp(features)
        with full_precision(z):
            return F.linear(F.normalize(at_least_fp32(z), dim=1), self.length * F.normalize(self.direction, dim=1))


def by_size(views: list[tuple[Tensor, ...]]) -> list[list[Tensor]]:
    """Neighbouring views of one size, and what comes with each, in one batch: the encoder runs once a size."""
    grouped = groupby(views, key=lambda view: view[0].shape[-1])
    return [[torch.cat(column) for column in zip(*group, strict=True)] for _, group in grouped]


def distillation(
    student: Tensor, teacher: Tensor, center: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross-entropy H(P_t(x), P_s(x')), mean over pairs of a global view x and another view x' (eq. 3).

    student: (V, B, K); teacher: (2, B, K), of the first two views; center: (K,).
    """
    with full_precision(student):
        p_t = F.softmax((teacher - center) / teacher_temperature, dim=2)  # centring and sharpening
        log_p_s = F.log_softmax(student / student_temperature, dim=2)
        # Image by image, (B, 2, V): over B and K at once a GPU would have one product of two thin matrices.
        pairs = -torch.einsum("gbk,vbk->bgv", p_t, log_p_s).mean(dim=0)  # (2, V)
    same = torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs.masked_fill(same, 0.0).sum() / (pairs.numel() - pairs.shape[0])
