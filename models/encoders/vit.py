"""Vision Transformer (Dosovitskiy et al., 2020, arXiv:2010.11929), timm's parameter names, no classifier."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.encoders.encoder import Encoder, EncoderParams, allow
from models.encoders.normalize import Normalize

SIZES = {  # dim, depth, heads
    "vit_nano": (64, 4, 2),
    "vit_micro": (96, 4, 3),
    "vit_tiny": (192, 12, 3),
    "vit_small": (384, 12, 6),
    "vit_base": (768, 12, 12),
    "vit_large": (1024, 24, 16),
    "vit_huge": (1280, 32, 16),
}
WIDE = 192  # from this many dimensions on, bf16 is faster on a CPU


@dataclass(frozen=True)
class ViTParams(EncoderParams):
    """Its size, its patches, and what its vector is."""

    BLOCKS = True

    arch: Literal["vit_nano", "vit_micro", "vit_tiny", "vit_small", "vit_base", "vit_large", "vit_huge"]
    patch_size: int  # side of a patch, px; it must divide the side of every view
    positions: Literal["sincos", "learned"] = "sincos"  # position embedding: fixed sines and cosines, or learned
    pool: Literal["token", "mean"] = "token"  # feature vector: the class token, or the mean of the patches

    def __post_init__(self) -> None:
        allow(self.patch_size >= 1, "patch_size", self.patch_size, "1 or more")

    def network(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> Encoder:
        return ViT(self, image_size, mean, std)

    def check_side(self, key: str, side: int) -> None:
        divisors = ", ".join(str(d) for d in range(1, side + 1) if side % d == 0)
        allow(side % self.patch_size == 0, "patch_size", self.patch_size, f"a divisor of {key} {side}: {divisors}")


class Attention(nn.Module):
    """Multi-head self-attention, (B, N, dim) → (B, N, dim)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        y = F.scaled_dot_product_attention(q, k, v)  # (B, heads, N, d/heads)
        return self.proj(y.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]

    def split(self, x: Tensor) -> Tensor:
        """Queries, keys and values of each head, (3, B, heads, N, d/heads)."""
        b, n, d = x.shape
        return self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers with GELU between them, (B, N, dim) → (B, N, dim)."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Norm(nn.LayerNorm):
    """Layer norm in the precision of its input; over sharded processes its weights come in bf16."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class Block(nn.Module):
    """Pre-norm transformer block, (B, N, dim) → (B, N, dim); keep (B, 2) scales the two branches of each sample.

    recompute: keep only the input for the backward pass and compute the block again there; the numbers are the same.
    """

    recompute = False

    def __init__(self, dim: int, heads: int, mlp_ratio: int = 4):
        super().__init__()
        self.norm1 = Norm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = Norm(dim, eps=1e-6)
        self.mlp = Mlp(dim, mlp_ratio * dim)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.compute, x, keep, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]
        return self.compute(x, keep)

    def compute(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """`forward` without recomputing."""
        if keep is None:
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]
        first, second = keep[:, :, None, None].unbind(1)  # (B, 1, 1)
        x = x + first * self.attn(self.norm1(x))
        return x + second * self.mlp(self.norm2(x))  # type: ignore[no-any-return]


def recompute(module: nn.Module) -> None:
    """Make every block in it recompute in the backward pass."""
    for m in module.modules():
        if isinstance(m, Block):
            m.recompute = True


class PatchEmbed(nn.Module):
    """Images (B, 3, H, W) → patch tokens (B, HW/P², dim), row by row."""

    def __init__(self, patch_size: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


def sincos_positions(dim: int, grid: int) -> Tensor:
    """2-D sine-cosine positions (1, 1 + grid², dim), zeros for the class token (MAE, appendix A.1)."""
    omega = 10_000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))  # (dim/4,)
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * omega  # (grid, dim/4)
    one = torch.cat([angle.sin(), angle.cos()], dim=1)  # (grid, dim/2)
    columns = one[None].expand(grid, grid, -1)
    rows = one[:, None].expand(grid, grid, -1)
    table = torch.cat([columns, rows], dim=2).reshape(1, grid * grid, dim)
    return torch.cat([torch.zeros(1, 1, dim), table.float()], dim=1)


def interpolate(table: Tensor, grid: int, rows: int, columns: int, more: float = 0.0) -> Tensor:
    """Positions (1, grid², dim) → (1, rows·columns, dim), bicubic; places as on a grid larger by `more` of a patch."""
    square = table.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    size = None if more else (rows, columns)
    scale = ((rows + more) / grid, (columns + more) / grid) if more else None
    return F.interpolate(square, size, scale, mode="bicubic").flatten(2).transpose(1, 2)


class ViT(Encoder):
    """uint8 or float-in-[0, 1] images (B, 3, H, W) → features (B, dim).

    H and W are multiples of the patch size; for another size than `image_size` (DINO's local crops)
    the positions are interpolated. keep: (B, depth, 2) from `draw_keep`, for stochastic depth.
    """

    WHOLE = (Block,)

    def __init__(self, params: ViTParams, image_size: int, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.dim, depth, heads = SIZES[params.arch]
        self.patch_size = params.patch_size
        self.pool = params.pool
        self.grid = image_size // params.patch_size
        self.normalize = Normalize(mean, std)
        self.patch_embed = PatchEmbed(params.patch_size, self.dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.dim))
        learned = params.positions == "learned"
        table = torch.zeros(1, 1 + self.grid**2, self.dim) if learned else sincos_positions(self.dim, self.grid)
        self.pos_embed = nn.Parameter(table, requires_grad=learned)
        self.blocks = nn.ModuleList(Block(self.dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(self.dim, eps=1e-6)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        if learned:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.trunc_normal_(m.weight, std=0.02)
                nn.init.zeros_(m.bias)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self.encode(self.embed(images), keep)
        return x[:, 0] if self.pool == "token" else x[:, 1:].mean(dim=1)

    def embed(self, images: Tensor) -> Tensor:
        """Images → patch tokens with their positions (B, N, dim)."""
        grid = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        return self.patch_embed(self.normalize(images)) + self.positions(*grid)  # type: ignore[no-any-return]

    def encode(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """All or some of an image's patch tokens (B, n, dim) → (B, 1 + n, dim), class token first."""
        x = self.with_class_token(tokens)
        for i, block in enumerate(self.blocks):
            x = block(x) if keep is None else block(x, keep[:, i])
        return self.norm(x)  # type: ignore[no-any-return]

    def with_class_token(self, tokens: Tensor) -> Tensor:
        """(B, n, dim) → (B, 1 + n, dim)."""
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(tokens.shape[0], -1, -1)
        return torch.cat([cls, tokens], dim=1)

    def draw_keep(self, n: int, rate: float, generator: Generator) -> Tensor:
        """Stochastic depth (Huang et al., 2016, arXiv:1603.09382): what n samples keep of each branch, (n, depth, 2).

        0 with probability p, else 1 / (1 − p); p is linear over depth, from 0 to `rate`, below 1.
        """
        p = torch.linspace(0, rate, len(self.blocks))[:, None]
        return (torch.rand(n, len(self.blocks), 2, generator=generator) >= p) / (1 - p)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Positions of the patch tokens (1, rows·columns, dim), interpolated for another grid than ours.

        As in DINO's official code, with a tenth of a patch more: its weights expect that.
        """
        table = self.pos_embed[:, 1:]
        return table if rows == columns == self.grid else interpolate(table, self.grid, rows, columns, more=0.1)

    def bf16_pays(self, side: int) -> bool:
        return self.dim >= WIDE

    def regrid(self, tensors: dict[str, Tensor]) -> list[str]:
        """Interpolate the positions, in place, to our grid, as MAE's official code does."""
        table = tensors.get("pos_embed")  # (1, 1 + grid², dim)
        if table is None or table.ndim != 3 or table.shape[1] < 2:
            return []
        grid = math.isqrt(table.shape[1] - 1)
        if grid == self.grid or grid**2 != table.shape[1] - 1:
            return []
        patches = interpolate(table[:, 1:].float(), grid, self.grid, self.grid)
        tensors["pos_embed"] = torch.cat([table[:, :1].float(), patches], dim=1)
        return [f"positions interpolated from {grid} × {grid} to {self.grid} × {self.grid}"]
