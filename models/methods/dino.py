"""DINO: Emerging Properties in Self-Supervised Vision Transformers.

Caron, Touvron, Misra, Jégou, Mairal, Bojanowski, Joulin, 2021, arXiv:2104.14294.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from models import parallel
from models.diagnosis import Diagnosis, Row, percent, undertrained
from models.encoders.encoder import Encoder, allow
from models.encoders.vit import ViT
from models.method import NO_BLOCKS, MethodParams, Pretraining
from models.optim import cosine, ramp
from models.precision import at_least_fp32, full_precision
from models.views.augmentation import ViewParams, check_area, draw
from models.views.sizes import by_size

COLOUR: Any = {"jitter": 0.8, "strengths": (0.4, 0.4, 0.2, 0.1), "grey": 0.2, "blur_kernel": "pillow"}  # as BYOL
UNIFORM, ONE = 0.95, 0.2  # uniform collapse: teacher's entropy over ln K; complete: its mean's over the most it can be
FEW = 0.5, 1.2  # dimensional collapse: the same below, and the gain, nats
GAIN, BEHIND, RISING = 0.5, 1.2, 0.05  # dimensional collapse; undertrained where KL is above or the gain rose so, nats


@dataclass(frozen=True)
class DINOParams(MethodParams):
    """Its crops, head, temperatures and momenta, by the paper's names."""

    global_area: tuple[float, float] = (0.4, 1.0)  # share of the image that a global crop covers, lowest to highest
    local_area: tuple[float, float] = (0.05, 0.4)  # share of the image that a local crop covers, lowest to highest
    local_crops: int = 8  # local crops per image
    local_size: int = 96  # side of a local crop, px
    drop_path: float = 0.0  # stochastic depth of the student's last block; the official ViT recipes have 0.1
    flip: float = 0.5  # probability of a horizontal flip
    rotation: float = 0.0  # largest rotation to either side, degrees; the paper has none
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)  # probability of a blur: first global, second global, local
    solarize: float = 0.2  # probability of solarising the second global view
    head_hidden: int = 2048  # width of the head's hidden layers
    head_bottleneck: int = 256  # width of the head before its last layer
    head_dim: int = 65536  # outputs K of the head
    head_batch_norm: bool = False  # use batch norm in the head
    norm_last_layer: bool = True  # keep the weights of the last layer at norm 1
    freeze_last_layer: float = 0.01  # share of the run in which the last layer waits (one epoch of 100)
    student_temperature: float = 0.1  # temperature τ_s of the student
    teacher_temperature: float = 0.04  # temperature τ_t of the teacher after its warm-up; as τ_s: no sharpening
    warmup_teacher_temperature: float = 0.04  # temperature τ_t of the teacher at the start
    warmup_teacher: float = 0.3  # share of the run in which τ_t rises
    teacher: Literal["momentum", "copy", "iteration", "epoch"] = "momentum"  # how it follows the student (figure 6)
    momentum: float = 0.996  # momentum λ of the teacher at the start; a cosine leads to 1
    center_momentum: float = 0.9  # momentum m of the centre; 1: no centring

    def __post_init__(self) -> None:
        for key in ("momentum", "center_momentum"):
            allow(0 <= getattr(self, key) <= 1, key, getattr(self, key), "0 to 1")
        for key in ("student_temperature", "teacher_temperature", "warmup_teacher_temperature"):
            allow(getattr(self, key) > 0, key, getattr(self, key), "a number above 0")
        for key in ("global_area", "local_area"):
            check_area(key, getattr(self, key))
        depth = 0 <= self.drop_path < 1 and (not self.drop_path or self.encoder.BLOCKS)
        allow(depth, "drop_path", self.drop_path, "0 to below 1 for a vision transformer, else 0")
        allow(self.accumulate == 1 or self.divisible, "accumulate", self.accumulate, "1, for batch norm")
        allow(not self.recompute or self.encoder.BLOCKS, "recompute", "true", NO_BLOCKS)
        _ = self.views  # augmentation settings that are impossible are named now

    @property
    def divisible(self) -> bool:
        return not (self.head_batch_norm or self.encoder.BATCH_NORM)

    def crops(self, size: int) -> list[tuple[str, int, int]]:
        return [("prepare.size", size, 2), ("dino.local_size", self.local_size, self.local_crops)]

    @property
    def views(self) -> list[ViewParams]:
        """Two global views, then the local ones: BYOL's augmentations and multi-crop (section 3.2)."""
        first = ViewParams(area=self.global_area, flip=self.flip, rotation=self.rotation, blur=self.blur[0], **COLOUR)
        second = replace(first, blur=self.blur[1], solarize=self.solarize)
        return [first, second, *[replace(first, area=self.local_area, blur=self.blur[2])] * self.local_crops]

    def faults(self, checks: Sequence[Row], now: Row) -> Iterator[Diagnosis]:
        each, mean, gain, kl = (now[key] for key in ("teacher_entropy", "mean_teacher_entropy", "gain", "kl"))
        raised = f"Raise dino.momentum (now {self.momentum}; try 0.9 to 0.999)."
        steadier = raised if self.teacher == "momentum" else f"Change dino.teacher (now {self.teacher}) to momentum."
        sharpness = f"dino.teacher_temperature (now {self.teacher_temperature})"
        if each > UNIFORM:
            because = f"The teacher spreads its output evenly: its entropy is {percent(each)} of the largest possible."
            change = f"Lower {sharpness} well below dino.student_temperature (now {self.student_temperature})."
            yield Diagnosis("uniform collapse", because, change)
        if mean < ONE:
            share = f"the entropy of its mean output is {percent(mean)} of the largest possible."
            because = f"The teacher gives nearly every image the same output: {share}"
            lower = f"Lower dino.center_momentum (now {self.center_momentum}; the paper has 0.9)."
            change = lower if self.center_momentum > 0.9 else f"Raise {sharpness}."
            yield Diagnosis("complete collapse", because, change)
        elif mean < FEW[0] and gain < FEW[1]:
            used = math.exp(gain + now["held_out_loss"])  # of the entropy of the mean teacher
            because = f"The teacher uses only {used:.1f} of its {self.head_dim} outputs."
            yield Diagnosis("dimensional collapse", because, steadier)
        if gain < GAIN:
            kinds = f"{math.exp(max(0.0, gain)):.1f} kinds of image"
            because = f"The teacher's output tells only {kinds} apart (its gain is {gain:.2f} nats)."
            slow = self.teacher == "epoch" or (self.teacher == "momentum" and self.momentum >= 0.5)
            behind, rising = kl > BEHIND, slow and gain > checks[len(checks) // 2]["gain"] + RISING
            if behind:
                because = f"The student does not follow the teacher: their KL divergence is {kl:.1f} nats."
            longer = undertrained("dino", self.epochs, self.optim.lr, because)
            yield longer if behind or rising else Diagnosis("dimensional collapse", because, steadier)


class Head(nn.Module):
    """Projection head h (appendix C): 3-layer MLP with GELU, L2 bottleneck, weight-normalised last layer."""

    def __init__(self, dim: int, params: DINOParams):
        super().__init__()
        self.mlp = nn.Sequential()
        for width in (dim, hidden := params.head_hidden):
            self.mlp.append(nn.Linear(width, hidden, bias=not params.head_batch_norm))
            if params.head_batch_norm:
                self.mlp.append(nn.BatchNorm1d(hidden))
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

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) → (B, K)."""
        z = self.mlp(features)
        with full_precision(z):  # divided by τ_t, 0.04, bf16's rounding would be 0.05 nats
            return F.linear(F.normalize(at_least_fp32(z), dim=1), self.length * F.normalize(self.direction, dim=1))


class DINO(Pretraining):
    """A student learns what its teacher, an average of its own past, says of other crops of the same image."""

    PARAMS = DINOParams
    TITLE, COLOURS, MARKER = "DINO", ("#0a7355", "#4fc7a0"), "^"
    WHOLE = (Head,)
    params: DINOParams
    center: Tensor

    def __init__(self, encoder: Encoder, params: DINOParams, image_size: int):
        super().__init__(encoder, params, image_size)
        self.student = nn.ModuleDict({"encoder": encoder, "head": Head(encoder.dim, params)})  # g_θs
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)  # g_θt
        self.register_buffer("center", torch.zeros(params.head_dim))  # C
        self.teacher_means: list[Tensor] = []  # of the parts of this step, for the next centre

    @property
    def encoder(self) -> Encoder:  # type: ignore[override]
        """The teacher's: it is the better one throughout training (section 5.2)."""
        return cast(Encoder, self.teacher["encoder"])

    def draw(self, n: int, height: int, width: int, generator: Generator) -> list[Tensor]:
        """Every view of n images, then with stochastic depth what the student keeps of each."""
        p, encoder = self.params, cast(ViT, self.encoder)
        drawn = [draw(n, height, width, each, generator) for each in p.views]
        return drawn + [encoder.draw_keep(n, p.drop_path, generator) for _ in drawn if p.drop_path]

    def views(self, images: Tensor, draws: list[Tensor]) -> list[Tensor]:
        """uint8 (B, 3, H, W) → two global views (B, 3, S, S), then the local ones (B, 3, s, s); then what is kept."""
        sizes = [self.size] * 2 + [self.params.local_size] * self.params.local_crops
        views = [self.augment(images, d, s, p) for d, s, p in zip(draws, sizes, self.params.views, strict=False)]
        return views + draws[len(views) :]

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        """Of the global views (B, 3, S, S), the local ones (B, 3, s, s), and with stochastic depth what is kept."""
        student, teacher = self.outputs(views)
        self.teacher_means.append(teacher.flatten(0, 1).mean(dim=0))
        return distillation(student, teacher, self.center, *self.temperatures(progress))

    def outputs(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Of the student (V, B, K), and of the teacher, which sees the global views only (2, B, K)."""
        crops = 2 + self.params.local_crops
        views, keep = views[:crops], views[crops:]
        inputs = by_size(list(zip(views, keep, strict=True)) if keep else [(x,) for x in views])
        student = self.student["head"](torch.cat([self.student["encoder"](*x) for x in inputs]))
        with torch.no_grad():
            teacher = self.teacher["head"](self.teacher["encoder"](torch.cat(views[:2])))
        return student.view(crops, len(views[0]), -1), teacher.view(2, len(views[0]), -1)

    def signals(self, views: list[Tensor], progress: float) -> dict[str, Tensor]:
        """How it does on B held-out images, without labels and without stochastic depth; gain and KL in nats."""
        student, teacher = self.outputs(views[: 2 + self.params.local_crops])
        loss = distillation(student, teacher, self.center, *self.temperatures(progress))
        p_t = F.softmax((teacher - self.center) / self.temperatures(progress)[1], dim=2).flatten(0, 1)  # (2B, K)
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
        """The last layer waits for an epoch: no gradient, no weight decay. The student is still that of this step."""
        if progress < self.params.freeze_last_layer:
            head = cast(Head, self.student["head"])
            head.direction.grad = head.length.grad = None
        self.follow("iteration")

    def after_step(self, progress: float) -> None:
        """C ← m C + (1 − m) mean of the batch's teacher outputs (eq. 4); the teacher follows the student."""
        self.center.lerp_(parallel.mean(torch.stack(self.teacher_means).mean(dim=0)), 1 - self.params.center_momentum)
        self.teacher_means.clear()
        self.follow("copy")
        self.follow("momentum", cosine(self.params.momentum, 1.0, progress))

    def after_epoch(self) -> None:
        self.follow("epoch")

    @torch.no_grad()
    def follow(self, teacher: str, momentum: float = 0.0) -> None:
        """If this is the kind of teacher: θt ← λ θt + (1 − λ) θs, a copy where λ is 0."""
        if self.params.teacher == teacher:
            torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum)

    def temperatures(self, progress: float) -> tuple[float, float]:
        """τ_s, and τ_t: linear warm-up, then constant."""
        p = self.params
        start, end = p.warmup_teacher_temperature, p.teacher_temperature
        return p.student_temperature, ramp(start, end, p.warmup_teacher, progress)


def distillation(student: Tensor, teacher: Tensor, center: Tensor, tau_s: float, tau_t: float) -> Tensor:
    """Cross-entropy H(P_t(x), P_s(x')), mean over pairs of a global view x and another view x' (eq. 3).

    student: (V, B, K); teacher: (2, B, K), of the first two views; center: (K,).
    """
    with full_precision(student):
        p_t = F.softmax((teacher - center) / tau_t, dim=2)  # centring and sharpening
        log_p_s = F.log_softmax(student / tau_s, dim=2)
        # Image by image, (B, 2, V): over B and K at once a GPU would have one product of two thin matrices.
        pairs = -torch.einsum("gbk,vbk->bgv", p_t, log_p_s).mean(dim=0)  # (2, V)
    same = torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs.masked_fill(same, 0.0).sum() / (pairs.numel() - pairs.shape[0])
