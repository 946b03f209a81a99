"""LARS and clipping against loops and the published updates, and the schedules' closed forms."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.multiprocessing.spawn import spawn

from models.encoders.resnet import ResNetParams
from models.encoders.vit import ViTParams
from models.optim import LARS, OptimParams, build, clip, cosine, layer_scales, set_schedule, warmup_cosine
from tests.models.conftest import RESNET, VIT, small

Vector = list[float]


def lars_step(p: Vector, g: Vector, v: Vector, lr: float, decay: float, adapt: bool) -> tuple[Vector, Vector]:
    """One step of You et al., algorithm 1, with SimCLR's momentum that holds the learning rate."""
    g = [gi + decay * pi for pi, gi in zip(p, g, strict=True)]
    p_norm, g_norm = math.hypot(*p), math.hypot(*g)
    trust = 0.001 * p_norm / g_norm if adapt and p_norm and g_norm else 1.0
    v = [0.9 * vi + lr * trust * gi for vi, gi in zip(v, g, strict=True)]
    return [pi - vi for pi, vi in zip(p, v, strict=True)], v


def test_lars_is_the_published_update(generator: Generator) -> None:
    weight, zero, bias = (torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(3))
    zero.zero_()
    adapted, excluded = [weight.view(2, 3), zero.view(3, 2)], [bias]
    groups = [{"params": adapted, "weight_decay": 0.1}, {"params": excluded, "adapt": False}]
    optimizer = LARS(groups, lr=1.0, momentum=0.9)
    state = [(p.tolist(), [0.0] * 6, decay, adapt) for p, decay, adapt in
             [(weight, 0.1, True), (zero, 0.1, True), (bias, 0.0, False)]]  # fmt: skip
    for lr in (0.5, 2.0, 0.1):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for i, p in enumerate([*adapted, *excluded]):
            gradient = torch.randn(6, generator=generator, dtype=torch.float64)
            p.grad = gradient.view_as(p)
            numbers, v, decay, adapt = state[i]
            state[i] = *lars_step(numbers, gradient.tolist(), v, lr, decay, adapt), decay, adapt
        optimizer.step()
        for p, (numbers, *_) in zip([*adapted, *excluded], state, strict=True):
            assert p.flatten().tolist() == pytest.approx(numbers, rel=1e-12)


def loop(groups: list[dict[str, Any]], momenta: dict[Tensor, Tensor], trust_clip: bool) -> None:
    """A step of LARS, one parameter after the other."""
    for group in groups:
        for p in group["params"]:
            if p.grad is None:
                continue
            before = group["momentum"] * momenta.get(p, torch.zeros_like(p))
            update = p.grad + group["weight_decay"] * p
            if trust_clip:  # solo-learn's
                if group["adapt"] and p.norm() > 0 and p.grad.norm() > 0:
                    ratio = group["trust"] * p.norm() / (p.grad.norm() + p.norm() * group["weight_decay"] + 1e-8)
                    update = update * min(ratio / group["lr"], torch.tensor(1.0))
                momenta[p] = before + update
                p.sub_(group["lr"] * momenta[p])
                continue
            if group["adapt"] and p.norm() > 0 and update.norm() > 0:
                update = update * group["trust"] * p.norm() / update.norm()
            momenta[p] = before + group["lr"] * update
            p.sub_(momenta[p])


@pytest.mark.parametrize("trust_clip", [False, True])
@torch.no_grad()
def test_lars_is_the_loop_over_its_parameters(trust_clip: bool, generator: Generator) -> None:
    ours, theirs = small(RESNET), small(RESNET)
    theirs.load_state_dict(ours.state_dict())
    params = OptimParams("lars", 0.3, 0.01, trust=0.02, trust_clip=trust_clip)
    optimizer, other = build(params, ours), build(params, theirs)
    momenta: dict[Tensor, Tensor] = {}
    pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
    for step, lr in enumerate((0.0, 0.3, 0.02, 0.001)):
        set_lr = [group.update(lr=lr) for o in (optimizer, other) for group in o.param_groups]
        assert len(set_lr) == 4
        for i, (a, b) in enumerate(pairs):
            absent = step == 1 and i % 3 == 0
            a.grad = None if absent else 10 ** (i % 5 - 2) * torch.randn(a.shape, generator=generator)
            b.grad = None if a.grad is None else a.grad.clone()
        optimizer.step()
        loop(other.param_groups, momenta, trust_clip)
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def solo_step(p: Vector, g: Vector, v: Vector, lr: float, decay: float, adapt: bool) -> tuple[Vector, Vector]:
    """One step of solo-learn's solo/utils/lars.py at 9187ea3 with clip_lr and exclude_bias_n_norm."""
    p_norm, g_norm = math.hypot(*p), math.hypot(*g)
    if adapt and p_norm != 0 and g_norm != 0:
        own = 0.02 * p_norm / (g_norm + p_norm * decay + 1e-8)
        own = min(own / lr, 1)
        g = [own * (gi + decay * pi) for pi, gi in zip(p, g, strict=True)]
    v = [0.9 * vi + gi for vi, gi in zip(v, g, strict=True)]
    return [pi - lr * vi for pi, vi in zip(p, v, strict=True)], v


def test_trust_clip_is_solo_learns_update(generator: Generator) -> None:
    weights = [torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(4)]
    weights[1].zero_()
    numbers = [(p.tolist(), [0.0] * 6) for p in weights]
    groups = [{"params": weights[:3], "weight_decay": 0.1}, {"params": weights[3:], "adapt": False}]
    optimizer = LARS(groups, lr=1.0, momentum=0.9, trust=0.02, trust_clip=True)
    for step, lr in enumerate((0.001, 0.5, 2.0, 0.1)):  # the first is below every layer's own rate
        for group in optimizer.param_groups:
            group["lr"] = lr
        for i, p in enumerate(weights):
            p.grad = torch.randn(6, generator=generator, dtype=torch.float64)
            if i == 2 and step > 1:  # a layer that has no gradient any more: theirs is not decayed either
                p.grad.zero_()
            numbers[i] = solo_step(numbers[i][0], p.grad.tolist(), numbers[i][1], lr, 0.1, i < 3)
        optimizer.step()
        for p, (expected, _) in zip(weights, numbers, strict=True):
            assert p.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_first_lars_step_knows_not_the_size_of_the_gradient(scale: float, generator: Generator) -> None:
    p = torch.randn(4, 5, generator=generator)
    before = p.clone()
    p.grad = scale * torch.randn(4, 5, generator=generator)
    LARS([{"params": [p]}], lr=2.0).step()
    assert ((p - before).norm() / before.norm()).item() == pytest.approx(2.0 * 0.001, rel=1e-3)


def test_lars_resumes_to_the_same_numbers(generator: Generator) -> None:
    gradients = torch.randn(4, 3, 3, generator=generator)

    def run(stop: int | None) -> Tensor:
        p = torch.ones(3, 3)
        optimizer = LARS([{"params": [p]}], lr=1.0)
        for step, gradient in enumerate(gradients):
            if step == stop:
                state, optimizer = optimizer.state_dict(), LARS([{"params": [p]}], lr=1.0)
                optimizer.load_state_dict(state)
            p.grad = gradient
            optimizer.step()
        return p

    assert torch.equal(run(stop=2), run(stop=None))


GRADIENTS = [[[3.0, 4.0], [0.0, 0.0]], [0.3, 0.4], [0.0, 0.0, 0.0], [[12.0]]]  # of norm 5, 0.5, 0 and 12


def with_gradients() -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.ones_like(torch.tensor(g))) for g in GRADIENTS]
    for p, g in zip(parameters, GRADIENTS, strict=True):
        p.grad = torch.tensor(g)
    return [*parameters, nn.Parameter(torch.ones(2))]  # the last has none


@pytest.mark.parametrize(
    ("asked", "norms"),
    [
        ({}, [5.0, 0.5, 0.0, 12.0]),
        ({"clip": 100.0}, [5.0, 0.5, 0.0, 12.0]),
        ({"clip": 1.3}, [x * 1.3 / math.hypot(5, 0.5, 12) for x in (5.0, 0.5, 0.0, 12.0)]),
        ({"clip_each": 3.0}, [3.0, 0.5, 0.0, 3.0]),
        ({"clip_each": 0.3}, [0.3, 0.3, 0.0, 0.3]),
    ],
)
def test_gradients_are_clipped_together_or_each(asked: dict[str, float], norms: list[float]) -> None:
    parameters = with_gradients()
    total = clip(OptimParams("sgd", 0.1, 0.0, **asked), parameters)  # type: ignore[arg-type]
    assert total.item() == pytest.approx(math.hypot(5, 0.5, 12))  # before clipping
    for p, g, norm in zip(parameters, GRADIENTS, norms, strict=False):
        assert p.grad is not None
        before = torch.tensor(g)
        expected = before * (norm / before.norm() if norm else 1)
        torch.testing.assert_close(p.grad, expected, rtol=1e-5, atol=0)
    assert parameters[-1].grad is None


def test_one_clipping_is_asked_for_at_a_time() -> None:
    with pytest.raises(ValueError, match=r"clip is 3\.0 and clip_each 1\.0; allowed: one of the two"):
        OptimParams("adamw", 0.1, 0.0, clip=3.0, clip_each=1.0)


def sharded(rank: int, store: str) -> None:
    """On each of two ranks: clipping and a step of LARS on halves are those on the whole."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for asked in ({}, {"clip": 1.3}, {"clip_each": 3.0}, {"trust_clip": True}):
        params = OptimParams("lars", 2.0, 0.1, **asked)
        module, halves = nn.ParameterList(with_gradients()), nn.ParameterList()
        for p in module:
            half = nn.Parameter(distribute_tensor(p.detach(), mesh, [Shard(0)]))
            half.grad = None if p.grad is None else distribute_tensor(p.grad, mesh, [Shard(0)])
            halves.append(half)
        torch.testing.assert_close(clip(params, halves), clip(params, module))
        build(params, halves).step()
        build(params, module).step()
        for half, p in zip(halves, module, strict=True):
            assert isinstance(half, DTensor)
            torch.testing.assert_close(half.full_tensor(), p)
    dist.destroy_process_group()


def test_sharded_parameters_are_clipped_and_stepped_as_the_whole(tmp_path: Path) -> None:
    spawn(sharded, args=(str(tmp_path / "store"),), nprocs=2)  # type: ignore[no-untyped-call]


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
    with pytest.raises(ValueError, match=r"lr_end is 0\.01 and lr_shape fixmatch, which ends at 0\.195 lr; allowed"):
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


@pytest.mark.parametrize(
    ("name", "value"), [("lr", 0.0), ("warmup", 1.0), ("clip", 0.0), ("clip_each", -1.0), ("trust", 0.0)]
)
def test_impossible_parameters_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        OptimParams("lars", **({"lr": 0.1, "weight_decay": 0.0} | {name: value}))  # type: ignore[arg-type]


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
        with pytest.raises(ValueError, match=f"layer_decay is {value}; allowed: above 0, to 1"):
            OptimParams("adamw", 0.1, 0.0, layer_decay=value)
