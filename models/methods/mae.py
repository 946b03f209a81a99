"""MAE: Masked Autoencoders Are Scalable Vision Learners.

He, Chen, Xie, Li, Dollár, Girshick, 2022, arXiv:2111.06377.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from models.diagnosis import Diagnosis, Row, percent, undertrained
from models.encoders.encoder import Encoder, allow
from models.encoders.vit import Block, ViT, ViTParams, sincos_positions
from models.method import Masking, MethodParams
from models.views.augmentation import ViewParams, draw

MASKED = 0.25  # trivial task: the masked share
BLOCKS = 32  # tries to place a block; what they leave is masked at random
LEAST_BLOCK = 16 / 196  # the smallest block, as a share of the patches (BEiT, algorithm 1)
ASPECT = math.log(0.3)  # of a block: from 0.3 to 1/0.3, uniform in the logarithm
MEAN_IMAGE, POINTED = 0.9, 0.97  # loss over the mean image's: undertrained, collapse where cosines are above


@dataclass(frozen=True)
class MAEParams(MethodParams):
    """Its augmentations, mask and decoder, by the paper's names."""

    encoder: ViTParams  # network to train: a vision transformer
    area: tuple[float, float] = (0.2, 1.0)  # share of the image that a crop covers, from lowest to highest
    flip: float = 0.5  # probability of a horizontal flip
    jitter: float = 0.0  # strength of the colour jitter (table 1e): brightness, contrast and saturation
    mask: Literal["random", "block", "grid"] = "random"  # mask sampling (table 1f); a grid keeps one of every four
    mask_tokens: Literal["decoder", "encoder"] = "decoder"  # what takes the mask tokens (table 1c)
    mask_ratio: float = 0.75  # share of the patches that is masked, between 0 and 1
    norm_pix: bool = True  # predict pixels that are normalised per patch
    decoder_dim: int = 512  # width of the decoder, a multiple of 4 and of decoder_heads
    decoder_depth: int = 8  # transformer blocks of the decoder
    decoder_heads: int = 16  # attention heads of the decoder

    def __post_init__(self) -> None:
        allow(0 < self.mask_ratio < 1, "mask_ratio", self.mask_ratio, "between 0 and 1")
        allow(self.jitter >= 0, "jitter", self.jitter, "0 or more")
        heads = self.decoder_heads
        allow(heads > 0 and not (self.decoder_dim % 4 or self.decoder_dim % heads), "decoder_dim", self.decoder_dim,
              f"a multiple of 4 and of decoder_heads, {heads}")  # fmt: skip
        _ = self.views  # augmentation settings that are impossible are named now

    @property
    def views(self) -> ViewParams:
        """The one view: crop and flip alone (section 4.1), or with colour jitter (table 1e)."""
        s = self.jitter
        return ViewParams(area=self.area, flip=self.flip, jitter=float(s > 0), strengths=(s, s, s, 0.0))

    def faults(self, checks: Sequence[Row], now: Row) -> Iterator[Diagnosis]:
        if self.mask_ratio < MASKED:
            because = (
                f"Only {percent(self.mask_ratio)} of an image is masked: the visible patches give the answer away."
            )
            yield Diagnosis(
                "trivial task", because, f"Raise mae.mask_ratio (now {self.mask_ratio}; the paper has 0.75)."
            )
        if (relative := now["relative_loss"]) > MEAN_IMAGE:
            because = (
                f"MAE reconstructs no better than the average image (loss is {percent(relative)} of that baseline)."
            )
            if now["feature_cosine"] > POINTED:
                yield Diagnosis("complete collapse", because, f"Lower mae.optim.lr (now {self.optim.lr}).")
            else:
                yield undertrained("mae", self.epochs, self.optim.lr, because)


class MAE(Masking):
    """A transformer sees a quarter of the patches, and a small one predicts the others' pixels."""

    PARAMS = MAEParams
    TITLE, COLOURS, MARKER = "MAE", ("#b04a00", "#f5a35c"), "s"
    KEPT = ("decoder", "mask_token")

    params: MAEParams

    def __init__(self, encoder: Encoder, params: MAEParams, image_size: int):
        super().__init__(encoder, params, image_size)
        if not isinstance(encoder, ViT):
            raise ValueError("MAE masks patches: its encoder is a vision transformer")
        self.encoder = encoder
        dim, patch = params.decoder_dim, encoder.patch_size
        self.decoder_embed = nn.Linear(encoder.dim, dim)
        width = encoder.dim if params.mask_tokens == "encoder" else dim
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed = nn.Parameter(sincos_positions(dim, encoder.grid), requires_grad=False)
        self.decoder_blocks = nn.ModuleList(Block(dim, params.decoder_heads) for _ in range(params.decoder_depth))
        self.decoder_norm = nn.LayerNorm(dim, eps=1e-6)
        self.decoder_pred = nn.Linear(dim, patch * patch * 3)
        self.apply(xavier)
        nn.init.xavier_uniform_(encoder.patch_embed.proj.weight.data.flatten(1))
        nn.init.normal_(self.mask_token, std=0.02)

    def draw(self, n: int, height: int, width: int, generator: Generator) -> list[Tensor]:
        """The view of n images, and the noise of their masks (n, N)."""
        view = draw(n, height, width, self.params.views, generator)
        return [view, self.noise(n, generator)]

    def noise(self, n: int, generator: Generator) -> Tensor:
        """Noise (n, N) whose order says what is masked: the highest."""
        grid = self.encoder.grid
        noise = torch.rand(n, grid**2, generator=generator)
        if self.params.mask == "block":
            return blockwise(noise, grid, grid**2 - self.visible(grid**2), generator)
        return gridwise(noise, grid, generator) if self.params.mask == "grid" else noise

    def visible(self, patches: int) -> int:
        """How many of the patches are not masked."""
        return max(1, int(patches * (1 - self.params.mask_ratio)))

    def views(self, images: Tensor, draws: list[Tensor]) -> list[Tensor]:
        """uint8 (B, 3, H, W) → one view (B, 3, S, S), and the noise (B, N)."""
        return [self.augment(images, draws[0], self.size, self.params.views), draws[1]]

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        """Of one view (B, 3, S, S) and its noise (B, N): the error on the masked patches."""
        return reconstruction(*self.reconstruct(*views), self.params.norm_pix)

    def reconstruct(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prediction and target (B, N, P²·3) of images (B, 3, S, S), and what of them is masked (B, N)."""
        visible, order = self.split(noise)
        masked = torch.ones_like(noise).scatter_(1, visible, 0.0)  # 1 = masked
        tokens = self.encoder.embed(x)  # (B, N, D), positions added before masking
        if self.params.mask_tokens == "encoder":
            hidden = self.mask_token + self.encoder.positions(self.encoder.grid, self.encoder.grid)
            tokens = torch.where(masked[:, :, None] > 0, hidden.to(tokens.dtype), tokens)
            prediction = self.predict(self.decoder_embed(self.encoder.encode(tokens)))
        else:
            latent = self.encoder.encode(take(tokens, visible))  # (B, 1 + n, D): visible patches only
            prediction = self.decode(latent, order)
        return prediction, patchify(self.encoder.normalize(x), self.encoder.patch_size), masked

    def signals(self, views: list[Tensor], progress: float) -> dict[str, Tensor]:
        """How it does on held-out images, without labels: the loss over that of their mean image."""
        prediction, target, masked = self.reconstruct(*views)
        target = per_patch(target) if self.params.norm_pix else target
        loss, base = (reconstruction(x, target, masked, False) for x in (prediction, target.mean(0).expand_as(target)))
        return {"held_out_loss": loss, "relative_loss": loss / base}  # 1: as good as the mean image

    def split(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Noise (B, N) → indices of the visible patches (B, n), and the order (B, N) that puts them first."""
        order = noise.argsort(dim=1)
        return order[:, : self.visible(noise.shape[1])], order

    def decode(self, latent: Tensor, order: Tensor) -> Tensor:
        """Latent (B, 1 + n, D) of the patches order[:, :n] → predicted pixels of every patch (B, N, P²·3)."""
        x = self.decoder_embed(latent)
        cls, visible = x[:, :1], x[:, 1:]
        masks = self.mask_token.expand(len(x), order.shape[1] - visible.shape[1], -1)
        x = take(torch.cat([visible, masks], dim=1), order.argsort(dim=1))  # unshuffle
        return self.predict(torch.cat([cls, x], dim=1))

    def predict(self, x: Tensor) -> Tensor:
        """The decoder's tokens of the class and of every patch (B, 1 + N, d) → predicted pixels (B, N, P²·3)."""
        x = x + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]  # type: ignore[no-any-return]


def blockwise(noise: Tensor, grid: int, masked: int, generator: Generator) -> Tensor:
    """Noise (n, N) → the same ordered by blocks: so many patches that lie in rectangles are highest.

    BEiT's block-wise sampling (Bao 2021, arXiv:2106.08254, algorithm 1, and its code): a block never masks more than is
    left to mask. What no block fits into is masked at random, so that every image has as many masked patches.
    """
    least, left = LEAST_BLOCK * grid**2, torch.full((len(noise), 1), masked)
    place, turn = torch.arange(grid), torch.zeros(len(noise), grid, grid)  # turn: the higher, the earlier masked
    for k, (share, aspect, row, column) in enumerate(torch.rand(BLOCKS, 4, len(noise), 1, generator=generator)):
        area, ratio = least + share * (left - least), ((2 * aspect - 1) * ASPECT).exp()
        height, width = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        top, start = (row * (grid - height + 1)).floor(), (column * (grid - width + 1)).floor()
        rows, columns = (place >= top) & (place < top + height), (place >= start) & (place < start + width)
        new = rows[:, :, None] & columns[:, None, :] & (turn == 0)
        count = new.sum(dim=(1, 2))[:, None]
        fits = (height < grid) & (width < grid) & (count <= left)
        turn = torch.where(new & fits[:, :, None], BLOCKS - k, turn)
        left = left - count * fits
    return (turn.flatten(1) + noise) / (BLOCKS + 1)


def gridwise(noise: Tensor, grid: int, generator: Generator) -> Tensor:
    """Noise (n, N) → the same ordered by the place in squares of 2 × 2 patches: at 75 % one of every four is visible.

    Each image draws the order of the four places, which is the same in all its squares. An odd number of patches per
    side is not divided into whole squares, so the grid has some faults there.
    """
    rank = torch.rand(len(noise), 4, generator=generator).argsort(dim=1)  # (n, 4)
    odd = torch.arange(grid) % 2
    place = (2 * odd[:, None] + odd).flatten()  # (N,)
    return (rank[:, place] + noise) / 4


def xavier(m: nn.Module) -> None:
    """The official initialisation of transformer blocks (appendix A.1)."""
    if isinstance(m, nn.Linear):
        nn.init.xavier_uniform_(m.weight)
        nn.init.zeros_(m.bias)


def take(tokens: Tensor, indices: Tensor) -> Tensor:
    """tokens (B, N, D), indices (B, n) → (B, n, D)."""
    return tokens.gather(1, indices[:, :, None].expand(-1, -1, tokens.shape[2]))


def patchify(images: Tensor, patch: int) -> Tensor:
    """(B, 3, H, W) → (B, HW/P², P²·3), row by row; within a patch row, column, channel."""
    b, c, h, w = images.shape
    x = images.reshape(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, patch * patch * c)


def reconstruction(prediction: Tensor, target: Tensor, masked: Tensor, norm_pix: bool) -> Tensor:
    """Mean squared error on masked patches only (section 3).

    prediction, target: (B, N, P²·3); masked: (B, N) of 0 and 1. norm_pix: the target is normalised patch by patch.
    """
    target = per_patch(target) if norm_pix else target
    error = (prediction.to(target.dtype) - target).square().mean(dim=2)  # (B, N)
    return (error * masked).sum() / masked.sum()


def per_patch(target: Tensor) -> Tensor:
    """Pixels (B, N, P²·3), normalised by mean and standard deviation of their patch."""
    return (target - target.mean(dim=2, keepdim=True)) / (target.var(dim=2, keepdim=True) + 1e-6).sqrt()
