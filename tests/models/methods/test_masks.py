"""MAE's masks and where their tokens enter: tables 1c, 1e and 1f of the paper."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.encoders.vit import ViTParams
from models.methods.mae import ASPECT, BLOCKS, LEAST_BLOCK, MAE, MAEParams, blockwise, gridwise
from models.views.augmentation import draw
from tests.models.conftest import OPTIM, VIT, noise_images, small, views_of

SMALL = {"decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}


def mae(image_size: int = 16, encoder: ViTParams = VIT, **changes: Any) -> MAE:
    return MAE(small(encoder, image_size), MAEParams(encoder, 1, 4, OPTIM, **(SMALL | changes)), image_size)


def blocks(numbers: Tensor, grid: int, masked: int) -> Iterator[set[tuple[int, int]]]:
    """BEiT's algorithm 1 in a slow loop, on the numbers (tries, 4) of one image: what each block masks anew."""
    done: set[tuple[int, int]] = set()
    least = LEAST_BLOCK * grid**2
    for share, aspect, row, column in numbers.tolist():
        area = least + share * (masked - len(done) - least)
        ratio = math.exp((2 * aspect - 1) * ASPECT)
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if height >= grid or width >= grid:
            continue
        top, left = int(row * (grid - height + 1)), int(column * (grid - width + 1))
        new = {(i, j) for i in range(top, top + height) for j in range(left, left + width)} - done
        if new and len(done) + len(new) <= masked:
            done |= new
            yield new


@pytest.mark.parametrize(("grid", "ratio"), [(14, 0.75), (14, 0.5), (8, 0.75), (4, 0.5)])
def test_blocks_are_a_slow_loop(grid: int, ratio: float) -> None:
    n, masked = 6, int(grid**2 * ratio)
    noise = torch.rand(n, grid**2, generator=torch.Generator().manual_seed(1))
    numbers = torch.rand(BLOCKS, 4, n, 1, generator=torch.Generator().manual_seed(0))[..., 0]
    order = blockwise(noise, grid, masked, torch.Generator().manual_seed(0)).argsort(dim=1, descending=True)
    for image in range(n):
        ranked = [divmod(p, grid) for p in order[image].tolist()]
        for block in blocks(numbers[:, :, image], grid, masked):
            assert set(ranked[: len(block)]) == block  # the first blocks are masked first, and none of it is visible
            del ranked[: len(block)]


@pytest.mark.parametrize("grid", [4, 8, 14])
def test_blocks_mask_nearly_all_that_is_masked(grid: int, generator: Generator) -> None:
    masked = grid**2 * 3 // 4
    found = blockwise(torch.rand(500, grid**2, generator=generator), grid, masked, generator)
    covered = (found * (BLOCKS + 1) >= 1).sum(dim=1)
    assert covered.max() == masked
    assert covered.double().mean() > 0.99 * masked


def neighbours_masked(method: MAE, generator: Generator) -> float:
    """The share of a masked patch's neighbours to the right that are masked."""
    visible, _ = method.split(method.noise(500, generator))
    grid = method.encoder.grid
    mask = torch.ones(500, grid**2).scatter(1, visible, 0.0).view(500, grid, grid)
    return ((mask[:, :, 1:] * mask[:, :, :-1]).sum() / mask[:, :, :-1].sum()).item()


def test_blocks_lie_together_and_a_grid_apart(generator: Generator) -> None:
    share = {m: neighbours_masked(mae(56, mask=m, mask_ratio=0.5), generator) for m in ("random", "block", "grid")}
    assert share["random"] == pytest.approx(0.5, abs=0.01)
    assert share["block"] > 0.8
    assert share["grid"] < 0.5


@pytest.mark.parametrize(("ratio", "shown"), [(0.75, 1), (0.5, 2), (0.25, 3)])
def test_a_grid_shows_the_same_places_of_every_four(ratio: float, shown: int, generator: Generator) -> None:
    method = mae(32, mask="grid", mask_ratio=ratio)
    visible, _ = method.split(method.noise(200, generator))
    mask = torch.zeros(200, 64).scatter(1, visible, 1.0).view(200, 4, 2, 4, 2)
    squares = mask.permute(0, 1, 3, 2, 4).reshape(200, 16, 4)
    assert (squares == squares[:, :1]).all()
    assert (squares[:, 0].sum(dim=1) == shown).all()
    assert (squares[:, 0].mean(dim=0) - shown / 4).abs().max() < 0.14  # each image has its own


def test_a_grid_orders_whole_places(generator: Generator) -> None:
    noise = torch.rand(50, 49, generator=generator)
    found = gridwise(noise, 7, generator)  # an odd side: 16, 12, 12 and 9 patches
    counts = (found * 4).long()
    assert sorted((counts[0] == k).sum().item() for k in range(4)) == [9, 12, 12, 16]
    assert found.min() >= 0
    assert found.max() < 1


@pytest.mark.parametrize("mask", ["random", "block", "grid"])
@pytest.mark.parametrize("tokens", ["decoder", "encoder"])
def test_every_mask_has_the_ratio_and_trains(mask: str, tokens: str, generator: Generator) -> None:
    method = mae(32, mask=mask, mask_tokens=tokens, mask_ratio=0.6)
    views = views_of(method, noise_images(5, 32), generator)
    assert method.split(views[1])[0].shape == (5, 25)
    method.loss(views, 0.0).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_random_masks_are_drawn_as_before_there_were_others() -> None:
    _, noise = mae().draw(6, 16, 16, torch.Generator().manual_seed(0))
    again = torch.Generator().manual_seed(0)
    draw(6, 16, 16, mae().params.views, again)
    assert torch.equal(noise, torch.rand(6, 16, generator=again))


def test_mask_tokens_in_the_encoder_stand_where_patches_are_masked(generator: Generator) -> None:
    method = mae(mask_tokens="encoder").eval()
    assert method.mask_token.shape == (1, 1, 64)  # as wide as the encoder
    seen: list[Tensor] = []
    method.encoder.blocks[0].register_forward_hook(lambda _module, args, _out: seen.append(args[0]))
    x, noise = views_of(method, noise_images(3, 16), generator)
    _, _, masked = method.reconstruct(x, noise)
    assert seen[0].shape == (3, 1 + 16, 64)
    patches, positions = method.encoder.embed(x), method.encoder.positions(4, 4)
    for image in range(3):
        for patch in range(16):
            hidden = method.mask_token[0, 0] + positions[0, patch]
            expected = hidden if masked[image, patch] else patches[image, patch]
            assert torch.equal(seen[0][image, 1 + patch], expected)


def test_masked_pixels_never_reach_the_encoder_that_sees_mask_tokens(generator: Generator) -> None:
    method = mae(mask_tokens="encoder").eval()
    x, noise = views_of(method, noise_images(3, 16), generator)
    prediction, _, masked = method.reconstruct(x, noise)
    pixels = masked.view(3, 1, 4, 4).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3).bool()
    other, _, _ = method.reconstruct(torch.where(pixels, torch.rand(x.shape, generator=generator), x), noise)
    assert torch.equal(prediction, other)


def test_mask_tokens_in_the_encoder_cost_as_much_as_all_patches(generator: Generator) -> None:
    def flops(tokens: str) -> int:
        method = mae(32, mask_tokens=tokens)
        views = views_of(method, noise_images(2, 32), generator)
        with FlopCounterMode(display=False) as counter:
            method.loss(views, 0.0)
        return int(counter.get_total_flops())

    assert flops("encoder") > 2 * flops("decoder")


def test_jitter_changes_brightness_contrast_and_saturation(generator: Generator) -> None:
    views = MAEParams(VIT, 1, 4, OPTIM, jitter=0.4).views
    assert (views.jitter, views.strengths, views.grey) == (1.0, (0.4, 0.4, 0.4, 0.0), 0.0)
    plain = MAEParams(VIT, 1, 4, OPTIM)
    assert plain.views == replace(views, jitter=0.0, strengths=(0.0,) * 4)
    with pytest.raises(ValueError, match=r"jitter is -0\.1\. Allowed: 0 or more"):
        replace(plain, jitter=-0.1)
