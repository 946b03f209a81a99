"""Attention of a vision transformer: of its class token in the last block, and the mask of most of its mass.

DINO (Caron et al., 2021, arXiv:2104.14294), figures 1, 3 and 4.
"""

import math

import torch
from torch import Tensor

from models.encoders.vit import Block, ViT


@torch.no_grad()
def attention(encoder: ViT, images: Tensor) -> Tensor:
    """Softmax attention of the class token to each patch token in the last block, (B, heads, rows, columns).

    images: (B, 3, H, W), as the encoder takes them. A head's weights sum to 1 minus what the class token gives itself.
    """
    rows, columns = (side // encoder.patch_size for side in images.shape[-2:])
    *blocks, last = encoder.blocks
    assert isinstance(last, Block)
    x = encoder.with_class_token(encoder.embed(images))
    for block in blocks:
        x = block(x)
    q, k, _ = last.attn.split(last.norm1(x))
    scores: Tensor = k @ q[:, :, 0, :, None] / math.sqrt(q.shape[-1])  # (B, heads, 1 + N, 1)
    return scores.softmax(dim=2)[:, :, 1:].view(*scores.shape[:2], rows, columns)


def mass_mask(attention: Tensor, share: float = 0.6) -> Tensor:
    """The fewest patches that hold `share` of the patches' attention, as booleans (…, rows, columns).

    attention: (…, rows, columns), one head or a mean of heads; each map is taken by itself, relative to its sum.
    The paper's share is 60 %. Raises ValueError when `share` is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}. Allowed: above 0, to 1")
    mass, order = attention.double().flatten(-2).sort(dim=-1, descending=True, stable=True)
    reached = mass.cumsum(dim=-1)
    enough = share * reached[..., -1:] * (1 - 1e-6)  # so that rounding does not add a patch
    kept = reached - mass < enough
    return torch.zeros_like(kept).scatter(-1, order, kept).view(attention.shape)
