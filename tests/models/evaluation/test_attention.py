"""The class token's attention against a loop and against the block's own output; the mass mask against every subset."""

import math
from itertools import combinations

import pytest
import torch
from torch import Generator, Tensor

from models.encoders.vit import Block, ViT
from models.evaluation.attention import attention, mass_mask
from tests.models.conftest import MEAN, STD, VIT, noise_images


@pytest.fixture
def encoder() -> ViT:
    """In double precision, without gradients, with weights that make it look at some patches more than at others."""
    torch.manual_seed(0)
    encoder = ViT(VIT, 16, MEAN, STD).double()
    encoder.requires_grad_(False)
    for block in encoder.blocks:
        block.attn.qkv.weight.mul_(20)  # type: ignore[union-attr, operator]
    return encoder


def last_block(encoder: ViT, images: Tensor) -> tuple[Block, Tensor]:
    """The last block and what its attention reads, (B, 1 + N, dim)."""
    block, seen = encoder.blocks[-1], []
    assert isinstance(block, Block)
    handle = block.attn.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    encoder(images)
    handle.remove()
    return block, seen[0]


def test_the_class_tokens_attention_is_the_loop(encoder: ViT) -> None:
    images = noise_images(2, 24)[:, :, :, :12].double() / 255  # 6 × 3 patches
    found = attention(encoder, images)
    assert found.shape == (2, 2, 6, 3)
    block, x = last_block(encoder, images)
    own, width = [], 32
    for image, maps in zip(x, found, strict=True):
        q, k, _ = (image @ block.attn.qkv.weight.T + block.attn.qkv.bias).split(64, dim=1)
        for head, weights in enumerate(maps):
            part = slice(head * width, (head + 1) * width)
            scores = [math.exp(float(q[0, part] @ key[part]) / math.sqrt(width)) for key in k]
            own.append(scores[0] / sum(scores))
            assert float(weights.sum()) == pytest.approx(1 - own[-1])
            for row in range(6):
                for column in range(3):
                    expected = scores[1 + 3 * row + column] / sum(scores)
                    assert float(weights[row, column]) == pytest.approx(expected)
    assert float(found.std()) > 0.01  # a uniform map would prove little
    assert max(own) > 0.001


def test_the_blocks_output_follows_from_the_weights(encoder: ViT) -> None:
    images = noise_images(3, 16).double() / 255
    patches = attention(encoder, images).flatten(2)  # (B, heads, N)
    weights = torch.cat([1 - patches.sum(dim=2, keepdim=True), patches], dim=2)
    block, x = last_block(encoder, images)
    v = block.attn.split(x)[2]  # (B, heads, 1 + N, dim / heads)
    ours = block.attn.proj((weights[..., None] * v).sum(dim=2).flatten(1))
    torch.testing.assert_close(ours, block.attn(x)[:, 0])


def test_looking_leaves_no_trace(encoder: ViT) -> None:
    encoder.requires_grad_()
    images = noise_images(1, 16).double() / 255
    before = encoder(images)
    assert not attention(encoder, images).requires_grad
    assert torch.equal(encoder(images), before)
    assert encoder(images).requires_grad


@pytest.mark.parametrize(("share", "kept"), [(0.5, 1), (0.51, 2), (0.6, 2), (0.75, 2), (0.8, 3), (0.9, 4), (1.0, 4)])
def test_halves_of_halves(share: float, kept: int) -> None:
    mask = mass_mask(torch.tensor([[0.125, 0.5], [0.25, 0.125]]), share)
    expected = [[kept > 2, kept > 0], [kept > 1, kept > 3]]  # of two alike the first
    assert mask.tolist() == expected


@pytest.mark.parametrize("side", [3, 7, 10])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9])
def test_of_uniform_attention_it_is_the_share_of_the_patches(side: int, share: float) -> None:
    mask = mass_mask(torch.full((side, side), 1 / side**2), share)
    assert int(mask.sum()) == math.ceil(round(share * side**2, 6))


def test_no_smaller_set_holds_the_share(generator: Generator) -> None:
    maps = torch.rand(4, 3, 3, generator=generator) ** 3  # not normalised: a map is relative to its sum
    for one, mask in zip(maps, mass_mask(maps, 0.6), strict=True):
        values, total = one.flatten().tolist(), float(one.sum())
        size = int(mask.sum())
        assert float(one[mask].sum()) >= 0.6 * total
        assert all(sum(some) < 0.6 * total for some in combinations(values, size - 1))


def test_heads_and_their_mean_are_taken_each_by_itself(generator: Generator) -> None:
    maps = torch.rand(2, 3, 4, 4, generator=generator)
    masks = mass_mask(maps)
    assert masks.shape == maps.shape
    assert torch.equal(masks[1, 2], mass_mask(maps[1, 2]))
    assert torch.equal(mass_mask(maps.mean(dim=1))[0], mass_mask(maps[0].mean(dim=0)))


@pytest.mark.parametrize("share", [0.0, 1.5, math.nan])
def test_a_share_is_above_nothing_and_at_most_all(share: float) -> None:
    with pytest.raises(ValueError, match="Allowed: above 0, to 1"):
        mass_mask(torch.ones(2, 2), share)
