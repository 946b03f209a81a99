"""LARS and gradient clipping equal loops and the published updates."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.multiprocessing.spawn import spawn

from models.optim import LARS, OptimParams, build, clip
from tests.models.conftest import RESNET, small

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
    with pytest.raises(ValueError, match=r"clip is 3\.0 and clip_each 1\.0\. Allowed: one of the two"):
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


@pytest.mark.parametrize(
    ("name", "value"), [("lr", 0.0), ("warmup", 1.0), ("clip", 0.0), ("clip_each", -1.0), ("trust", 0.0)]
)
def test_impossible_parameters_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        OptimParams("lars", **({"lr": 0.1, "weight_decay": 0.0} | {name: value}))  # type: ignore[arg-type]
