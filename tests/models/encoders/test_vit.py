"""ViT: timm's names and shapes by their rule, published counts, attention and positions against loops."""

import math

import pytest
import torch
from torch import Generator, Tensor

from models.encoders.vit import Attention, Block, ViT, ViTParams, recompute, sincos_positions
from tests.models.conftest import MEAN, STD, VIT, noise_images


def timm_shapes(d: int, patch: int, depth: int) -> dict[str, tuple[int, ...]]:
    """The state dict of timm's vit_*_patch*_224 without head."""
    block: dict[str, tuple[int, ...]] = {
        "norm1.weight": (d,), "norm1.bias": (d,),
        "attn.qkv.weight": (3 * d, d), "attn.qkv.bias": (3 * d,),
        "attn.proj.weight": (d, d), "attn.proj.bias": (d,),
        "norm2.weight": (d,), "norm2.bias": (d,),
        "mlp.fc1.weight": (4 * d, d), "mlp.fc1.bias": (4 * d,),
        "mlp.fc2.weight": (d, 4 * d), "mlp.fc2.bias": (d,),
    }  # fmt: skip
    return {
        "cls_token": (1, 1, d), "pos_embed": (1, 1 + (224 // patch) ** 2, d),
        "patch_embed.proj.weight": (d, 3, patch, patch), "patch_embed.proj.bias": (d,),
        **{f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()},
        "norm.weight": (d,), "norm.bias": (d,),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("params", "dim", "depth", "count"),
    [
        (ViTParams("vit_small", 16, "learned"), 384, 12, 21_665_664),
        (ViTParams("vit_base", 16, "learned"), 768, 12, 85_798_656),
        (ViTParams("vit_large", 16, "learned"), 1024, 24, 303_301_632),
        (ViTParams("vit_huge", 14, "learned"), 1280, 32, 630_764_800),
    ],
)
def test_names_shapes_and_count_are_timms(params: ViTParams, dim: int, depth: int, count: int) -> None:
    with torch.device("meta"):
        encoder = ViT(params, 224, MEAN, STD)
    own = {k: tuple(v.shape) for k, v in encoder.state_dict().items() if not k.startswith("normalize.")}
    assert own == timm_shapes(dim, params.patch_size, depth)
    assert sum(p.numel() for p in encoder.parameters()) == count
    assert encoder.dim == dim


def test_positions_are_sines_and_cosines() -> None:
    dim, grid = 16, 3
    table = sincos_positions(dim, grid)
    assert table.shape == (1, 10, 16)
    assert not table[0, 0].any()
    for row in range(grid):
        for column in range(grid):
            expected = [
                wave(place / 10_000 ** (k / 4))
                for place in (column, row)
                for wave in (math.sin, math.cos)
                for k in range(4)
            ]
            assert table[0, 1 + row * grid + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_attention_is_the_loop(generator: Generator) -> None:
    dim, heads, tokens, width = 12, 3, 5, 4
    attention = Attention(dim, heads).double()
    x = torch.randn(2, tokens, dim, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        for image, ours in zip(x, attention(x), strict=True):
            q, k, v = (image @ attention.qkv.weight.T + attention.qkv.bias).split(dim, dim=1)
            out = torch.empty(tokens, dim, dtype=torch.float64)
            for head in range(heads):
                part = slice(head * width, (head + 1) * width)
                for i in range(tokens):
                    scores = [math.exp(float(q[i, part] @ k[j, part]) / math.sqrt(width)) for j in range(tokens)]
                    out[i, part] = sum(s / sum(scores) * v[j, part] for j, s in enumerate(scores))
            torch.testing.assert_close(ours, out @ attention.proj.weight.T + attention.proj.bias)


def test_a_block_is_pre_norm_with_exact_gelu(generator: Generator) -> None:
    block = Block(64, heads=2)
    x = torch.randn(2, 5, 64, generator=generator)
    y = x + block.attn(block.norm1(x))
    hidden = block.mlp.fc1(block.norm2(y))
    gelu = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    torch.testing.assert_close(block(x), y + block.mlp.fc2(gelu))


def test_a_patch_is_a_token_row_by_row() -> None:
    encoder = ViT(VIT, 16, MEAN, STD)
    images = noise_images(1, 16)
    changed = images.clone()
    changed[:, :, 4:8, 8:12] = 255 - changed[:, :, 4:8, 8:12]  # row 1, column 2 of 4 × 4 patches
    differs = (encoder.embed(images) != encoder.embed(changed)).any(dim=2)[0]
    assert differs.nonzero().flatten().tolist() == [6]


@pytest.mark.parametrize("shape", [(16, 16), (8, 8), (24, 12)])
def test_any_multiple_of_the_patch_is_taken(shape: tuple[int, int]) -> None:
    encoder = ViT(VIT, 16, MEAN, STD).eval()
    h, w = shape
    images = noise_images(2, 24)[:, :, :h, :w]
    assert encoder.embed(images).shape == (2, h * w // 16, 64)
    assert encoder(images).shape == (2, 64)


def taps(out: int, grid: int) -> list[list[tuple[int, float]]]:
    """Cubic convolution (Keys, a = -0.75) onto `out` places, spread as over out + 0.1; the border is repeated."""
    rows = []
    for place in range(out):
        at = (place + 0.5) * grid / (out + 0.1) - 0.5
        row = []
        for source in range(math.floor(at) - 1, math.floor(at) + 3):
            d = abs(at - source)
            near = 1.25 * d**3 - 2.25 * d**2 + 1
            far = -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3
            row.append((min(max(source, 0), grid - 1), near if d < 1 else far))
        rows.append(row)
    return rows


def test_positions_are_interpolated_as_dinos_official_code_does() -> None:
    encoder = ViT(ViTParams("vit_nano", 4, "learned"), 32, MEAN, STD)
    assert torch.equal(encoder.positions(8, 8), encoder.pos_embed[:, 1:])
    table, ours = encoder.pos_embed[0, 1:].view(8, 8, 64), encoder.positions(3, 12).view(3, 12, 64)
    for r, row in enumerate(taps(3, 8)):
        for c, column in enumerate(taps(12, 8)):
            expected = sum(v * w * table[y, x] for y, v in row for x, w in column)
            torch.testing.assert_close(ours[r, c], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("grid", "side"), [(14, 6), (14, 1), (14, 30), (56, 24), (7, 13)])
def test_any_grid_is_interpolated_to_its_size(grid: int, side: int) -> None:
    encoder = ViT(VIT, 4 * grid, MEAN, STD)
    assert encoder.positions(side, side).shape == (1, side * side, 64)


def test_the_order_of_tokens_means_nothing(generator: Generator) -> None:
    encoder = ViT(VIT, 16, MEAN, STD)
    tokens = torch.randn(2, 9, 64, generator=generator)
    order = torch.randperm(9, generator=generator)
    encoded, shuffled = encoder.encode(tokens), encoder.encode(tokens[:, order])
    torch.testing.assert_close(shuffled[:, 0], encoded[:, 0])
    torch.testing.assert_close(shuffled[:, 1:], encoded[:, 1:][:, order])


def test_pool_is_the_class_token_or_the_mean_of_the_patches() -> None:
    images = noise_images(2, 16)
    token, mean = (ViT(ViTParams("vit_nano", 4, pool=pool), 16, MEAN, STD) for pool in ("token", "mean"))
    mean.load_state_dict(token.state_dict())
    tokens = token.encode(token.embed(images))
    torch.testing.assert_close(token(images), tokens[:, 0])
    torch.testing.assert_close(mean(images), tokens[:, 1:].mean(dim=1))


@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_learned_positions_learn_and_others_do_not(positions: str) -> None:
    encoder = ViT(ViTParams("vit_nano", 4, positions), 16, MEAN, STD)  # type: ignore[arg-type]
    assert encoder.pos_embed.requires_grad == (positions == "learned")
    assert torch.equal(encoder.pos_embed, sincos_positions(64, 4)) == (positions == "sincos")


def test_impossible_patch_is_named() -> None:
    with pytest.raises(ValueError, match="patch_size is 0"):
        ViTParams("vit_nano", 0)


def test_a_branch_that_is_not_kept_is_skipped(generator: Generator) -> None:
    encoder = ViT(VIT, 16, MEAN, STD)
    images = noise_images(3, 16)
    keep = torch.tensor([0.0, 1.25]).index_select(0, torch.randint(2, (24,), generator=generator)).view(3, 4, 2)
    for image, row, ours in zip(images, keep, encoder(images, keep), strict=True):
        cls = encoder.cls_token + encoder.pos_embed[:, :1]
        x = torch.cat([cls, encoder.embed(image[None])], dim=1)
        for block, (attention, mlp) in zip(encoder.blocks, row.tolist(), strict=True):
            assert isinstance(block, Block)
            x = x + attention * block.attn(block.norm1(x)) if attention else x
            x = x + mlp * block.mlp(block.norm2(x)) if mlp else x
        torch.testing.assert_close(ours, encoder.norm(x)[0, 0])
    torch.testing.assert_close(encoder(images, torch.ones(3, 4, 2)), encoder(images))


def test_stochastic_depth_is_linear_over_depth_and_keeps_the_mean(generator: Generator) -> None:
    n, rate = 20_000, 0.3
    keep = ViT(VIT, 16, MEAN, STD).draw_keep(n, rate, generator)
    assert keep.shape == (n, 4, 2)
    for depth, p in enumerate([0.0, 0.1, 0.2, 0.3]):
        values = keep[:, depth]
        assert sorted(set(values.flatten().tolist())) == pytest.approx([0.0, 1 / (1 - p)] if p else [1.0])
        sd = math.sqrt(p * (1 - p) / n)
        for branch in (0, 1):
            assert (values[:, branch] == 0).double().mean().item() == pytest.approx(p, abs=5 * sd + 1e-9)
    dropped = (keep[:, 3] == 0).double()
    assert torch.corrcoef(dropped.T)[0, 1].abs().item() < 5 / math.sqrt(n)  # each branch has a draw of its own


def test_a_block_is_one_graph_with_and_without_stochastic_depth(generator: Generator) -> None:
    block = Block(64, heads=2)
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    x, keep = torch.randn(2, 5, 64, generator=generator), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(compiled(x), block(x))
    torch.testing.assert_close(compiled(x, keep), block(x, keep))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_block_that_is_recomputed_has_the_same_gradients_to_the_bit(compiled: bool, generator: Generator) -> None:
    block = Block(64, heads=2)
    x, keep = torch.randn(2, 5, 64, generator=generator), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = []
    for again in (False, True):
        if again:
            recompute(block)
        kept: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):  # type: ignore[misc]
            call = torch.compile(block, backend="aot_eager", fullgraph=True) if compiled else block
            loss = call(x, keep).square().sum()
        loss.backward()
        found.append([p.grad.clone() for p in block.parameters() if p.grad is not None])
        block.zero_grad()
        assert compiled or (len(kept) < 5) == again
    assert all(map(torch.equal, *found))
