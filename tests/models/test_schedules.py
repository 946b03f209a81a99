"""Learning rates and weight decay, of each step and each layer, are the published ones."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from models.encoders.resnet import ResNetParams
from models.encoders.vit import ViTParams
from models.optim import OptimParams, build, cosine, layer_scales, set_schedule, warmup_cosine
from tests.models.conftest import RESNET, VIT, small


def test_warmup_then_cosine() -> None:
    def lr(progress: float) -> float:
        return warmup_cosine(3.0, 1.0, 0.2, progress)

    assert [lr(t) for t in (0.0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.0, 1.5, 3.0, 2.0, 1.0])
    grid = [lr(i / 100) for i in range(101)]
    assert all(a < b for a, b in pairwise(grid[:21]))
    assert all(a > b for a, b in pairwise(grid[20:]))
    assert warmup_cosine(3.0, 1.0, 0.0, 0.0) == 3.0


def test_fixmatchs_rate_is_the_published_one() -> None:
    """Sohn et al., 2020, section 2.4: η cos(7π k / 16 K); the official code has no warm-up."""
    params = OptimParams("sgd", 0.03, 5e-4, lr_shape="fixmatch")
    optimizer = build(params, small(RESNET))
    rates = [set_schedule(optimizer, params, 64, k / 8) for k in range(9)]
    assert rates == pytest.approx([0.03 * math.cos(7 * math.pi * k / (16 * 8)) for k in range(9)], rel=1e-12)
    assert {group["lr"] for group in optimizer.param_groups} == {rates[-1]}
    warm = OptimParams("sgd", 0.03, 5e-4, lr_shape="fixmatch", warmup=0.5)
    assert [set_schedule(optimizer, warm, 64, t) for t in (0.25, 0.5, 1.0)] == pytest.approx([0.015, 0.03, rates[-1]])
    with pytest.raises(ValueError, match=r"lr_end is 0\.01 and lr_shape fixmatch, which ends at 0\.195 lr\. Allowed"):
        OptimParams("sgd", 0.03, 5e-4, lr_shape="fixmatch", lr_end=0.01)


def test_cosine_ends_and_middle() -> None:
    values = [cosine(0.996, 1.0, t) for t in (0.0, 1 / 3, 0.5, 2 / 3, 1.0)]
    assert values == pytest.approx([0.996, 0.997, 0.998, 0.999, 1.0], rel=1e-12)


@pytest.mark.parametrize(
    ("lr", "scaling", "batch_size", "peak"),
    [
        (0.3, "linear", 4096, 4.8),  # SimCLR, section 2.2
        (0.075, "sqrt", 4096, 4.8),  # SimCLR, appendix B.1
        (1.5e-4, "linear", 4096, 2.4e-3),  # MAE, table 8
        (5e-4, "linear", 1024, 2e-3),  # DINO, section 3.2
        (0.002, "none", 4096, 0.002),
    ],
)
def test_peak_is_the_published_rate(lr: float, scaling: str, batch_size: int, peak: float) -> None:
    params = OptimParams("lars", lr, 1e-6, lr_scaling=scaling)  # type: ignore[arg-type]
    assert params.peak_lr(batch_size) == pytest.approx(peak)


@pytest.mark.parametrize(
    "encoder", [VIT, ViTParams("vit_nano", 4, "learned"), RESNET], ids=["fixed", "learned", "resnet"]
)
@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_vectors_get_no_decay_and_fixed_parameters_no_step(name: str, encoder: ResNetParams | ViTParams) -> None:
    module = small(encoder)
    optimizer = build(OptimParams(name, 0.1, 0.04), module)  # type: ignore[arg-type]
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], decayed["adapt"]) == (0.04, True)
    assert (plain["weight_decay"], plain["adapt"]) == (0.0, False)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in plain["params"])
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in module.parameters() if p.requires_grad}
    assert len(trained) == len(decayed["params"]) + len(plain["params"])


@pytest.mark.parametrize("spare", [True, False])
def test_fine_tuning_decays_neither_class_token_nor_positions(spare: bool) -> None:
    """As MAE's fine-tuning and timm; MAE's pretraining and DINO decay them, and spare what is 1-d alone."""
    module = nn.Sequential(small(ViTParams("vit_nano", 4, "learned")), nn.Linear(64, 3))
    groups = build(OptimParams("adamw", 1e-3, 0.05, layer_decay=0.75), module, spare).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, p in module.named_parameters():
        token = name in ("0.cls_token", "0.pos_embed")
        assert decay[id(p)] == (0.0 if p.ndim == 1 or (token and spare) else 0.05), name
    assert {scale for group in groups for p in group["params"] if p.ndim == 3 for scale in [group["scale"]]} == {
        0.75**5
    }


@pytest.mark.parametrize(("end", "expected"), [(0.4, [0.04, 0.22, 0.4]), (None, [0.04] * 3)])
def test_weight_decay_follows_a_cosine(end: float | None, expected: list[float]) -> None:
    params = OptimParams("adamw", 5e-4, 0.04, lr_scaling="linear", weight_decay_end=end, warmup=0.1)
    optimizer = build(params, small(VIT))
    for progress, decay in zip((0.0, 0.5, 1.0), expected, strict=True):
        lr = set_schedule(optimizer, params, 1024, progress)
        decayed, plain = optimizer.param_groups
        assert decayed["weight_decay"] == pytest.approx(decay)
        assert plain["weight_decay"] == 0
        assert decayed["lr"] == plain["lr"] == lr == warmup_cosine(2e-3, 0.0, 0.1, progress)


@pytest.mark.parametrize(("arch", "layers", "decay"), [("vit_base", 12, 0.65), ("vit_large", 24, 0.75)])
def test_layers_of_a_vit_decay_as_officially(arch: Any, layers: int, decay: float) -> None:
    """MAE's util/lr_decay.py on its fine-tuned models: d^(L + 1 − i), i = 0 for the patches, 1 … L for the blocks."""
    with torch.device("meta"):
        names = [
            name
            for name, _ in nn.ModuleDict(
                {"encoder": small(ViTParams(arch, 4)), "head": nn.Linear(4, 2)}
            ).named_parameters()
        ]
    scales = layer_scales(decay, names)
    for stem in ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"):
        assert scales[f"encoder.{stem}"] == pytest.approx(decay ** (layers + 1))
    for i in range(layers):
        assert scales[f"encoder.blocks.{i}.attn.qkv.weight"] == pytest.approx(decay ** (layers - i))
    assert scales[f"encoder.blocks.{layers - 1}.mlp.fc2.bias"] == pytest.approx(decay)
    assert {scales[name] for name in ("encoder.norm.weight", "head.weight", "head.bias")} == {1.0}


def test_stages_of_a_resnet_decay() -> None:
    scales = layer_scales(0.5, [name for name, _ in nn.Sequential(small(RESNET), nn.Linear(32, 3)).named_parameters()])
    stem = {"0.conv1.weight", "0.bn1.weight", "0.bn1.bias"}
    for name, scale in scales.items():
        stage = 0 if name in stem else int(name[len("0.layer")]) if name.startswith("0.layer") else 5
        assert scale == 0.5 ** (5 - stage), name


def test_the_schedule_multiplies_and_a_decay_of_one_is_none() -> None:
    module = nn.Sequential(small(VIT), nn.Linear(64, 3))
    params = OptimParams("adamw", 1e-3, 0.05, lr_scaling="linear", warmup=0.1, layer_decay=0.75)
    optimizer = build(params, module)
    rates = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    assert set(rates) == {id(p) for p in module.parameters() if p.requires_grad}
    lr = set_schedule(optimizer, params, 512, 0.5)
    assert lr == warmup_cosine(2e-3, 0.0, 0.1, 0.5)
    assert rates[id(module[1].weight)]["lr"] == lr
    assert rates[id(module[0].get_parameter("patch_embed.proj.weight"))]["lr"] == pytest.approx(lr * 0.75**5)
    assert rates[id(module[0].get_parameter("blocks.1.norm1.bias"))] | {"params": []} == rates[
        id(module[0].get_parameter("blocks.1.norm1.weight"))
    ] | {"params": []}
    for group in optimizer.param_groups:
        assert group["weight_decay"] == (0.05 if group["params"][0].ndim > 1 else 0.0)
    assert len(build(OptimParams("adamw", 1e-3, 0.05), module).param_groups) == 2


def test_layer_decay_is_a_share() -> None:
    for value in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"layer_decay is {value}\. Allowed: above 0, to 1"):
            OptimParams("adamw", 0.1, 0.0, layer_decay=value)
