"""Distillation against eq. 3 written out; the teacher, its centre and the many crops."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from models.encoders.resnet import ResNetParams
from models.encoders.vit import ViTParams
from models.methods.dino import DINO, DINOParams, Head, by_size, distillation
from tests.models.conftest import OPTIM, RESNET, VIT, noise_images, small, views_of


def dino(encoder: ResNetParams | ViTParams = VIT, **changes: Any) -> DINO:
    small_head = {"head_hidden": 16, "head_bottleneck": 8, "head_dim": 12, "local_crops": 3, "local_size": 8}
    return DINO(small(encoder), DINOParams(encoder, 1, 4, OPTIM, **(small_head | changes)), 16)


def softmax(values: list[float]) -> list[float]:
    exps = [math.exp(v - max(values)) for v in values]
    return [e / sum(exps) for e in exps]


def test_distillation_is_eq_3(generator: Generator) -> None:
    student = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
    teacher = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    center = torch.randn(5, generator=generator, dtype=torch.float64)
    losses = []
    for image in range(3):
        for g in range(2):
            p_t = softmax(((teacher[g, image] - center) / 0.4).tolist())
            for v in range(4):
                if v != g:
                    p_s = softmax((student[v, image] / 0.7).tolist())
                    losses.append(-sum(t * math.log(s) for t, s in zip(p_t, p_s, strict=True)))
    assert len(losses) == 3 * 2 * 3
    loss = distillation(student, teacher, center, student_temperature=0.7, teacher_temperature=0.4)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-12)


@pytest.mark.parametrize("views", [2, 6])
def test_uniform_collapse_costs_ln_k(views: int) -> None:
    k = 1000
    student, teacher = (torch.ones(n, 4, k, dtype=torch.float64) for n in (views, 2))
    loss = distillation(student, teacher, torch.zeros(k), 0.1, 0.04)
    assert loss.item() == pytest.approx(math.log(k), rel=1e-12)


def test_centre_is_subtracted(generator: Generator) -> None:
    student, teacher = torch.randn(2, 2, 3, 5, generator=generator, dtype=torch.float64)
    shift = torch.randn(5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        distillation(student, teacher + shift, shift, 0.1, 0.04),
        distillation(student, teacher, torch.zeros(5), 0.1, 0.04),
    )


def test_teacher_starts_as_the_student_and_gets_no_gradient(generator: Generator) -> None:
    method = dino()
    for s, t in zip(method.student.parameters(), method.teacher.parameters(), strict=True):
        assert torch.equal(s, t)
        assert s is not t
    method.loss(views_of(method, noise_images(4, 16), generator), 0.5).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad is not None for p in method.student.parameters() if p.requires_grad)
    assert method.encoder is method.teacher["encoder"]


def test_last_layer_is_frozen_at_first(generator: Generator) -> None:
    method = dino(freeze_last_layer=0.1, norm_last_layer=False)
    views, head = views_of(method, noise_images(4, 16), generator), method.student["head"]
    assert isinstance(head, Head)
    method.loss(views, 0.09).backward()  # type: ignore[no-untyped-call]
    method.before_step(0.09)
    assert head.direction.grad is None
    assert head.length.grad is None
    assert head.get_parameter("mlp.0.weight").grad is not None
    method.loss(views, 0.1).backward()  # type: ignore[no-untyped-call]
    method.before_step(0.1)
    assert head.direction.grad is not None
    assert head.length.grad is not None


@pytest.mark.parametrize(("progress", "momentum"), [(0.0, 0.996), (0.5, 0.998), (1.0, 1.0)])
def test_teacher_is_a_moving_average(progress: float, momentum: float) -> None:
    method = dino(RESNET)
    with torch.no_grad():
        for p in method.student.parameters():
            p.add_(torch.randn_like(p))
    before = [p.clone() for p in method.teacher.parameters()]
    buffers = [b.clone() for b in method.teacher.buffers()]
    method.teacher_means.append(method.center)  # of a batch whose loss was computed
    method.after_step(progress)
    for now, old, student in zip(method.teacher.parameters(), before, method.student.parameters(), strict=True):
        torch.testing.assert_close(now, momentum * old + (1 - momentum) * student, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(method.teacher.buffers(), buffers, strict=True))
    if momentum == 1:
        assert all(torch.equal(a, b) for a, b in zip(method.teacher.parameters(), before, strict=True))


def test_centre_follows_eq_4(generator: Generator) -> None:
    method = dino(center_momentum=0.9).eval()
    expected = torch.zeros(12)
    for _ in range(2):
        views = views_of(method, noise_images(4, 16), generator)
        outputs = method.teacher["head"](method.teacher["encoder"](torch.cat(views[:2])))
        expected = 0.9 * expected + 0.1 * outputs.mean(dim=0)
        method.loss(views, 0.0)
        method.after_step(0.0)
    torch.testing.assert_close(method.center, expected)
    assert "center" in method.state_dict()  # a resumed run goes on with it


def test_teacher_sees_the_global_views_only(generator: Generator) -> None:
    method, other = dino().eval(), dino().eval()
    other.load_state_dict(method.state_dict())
    seen: list[Tensor] = []
    method.teacher["encoder"].register_forward_hook(lambda _module, args, _out: seen.append(args[0]))
    views = views_of(method, noise_images(4, 16), generator)
    first = method.loss(views, 0.0)
    second = other.loss(views[:2] + [1 - v for v in views[2:]], 0.0)
    for each in (method, other):
        each.after_step(1.0)
    assert len(seen) == 1
    assert torch.equal(seen[0], torch.cat(views[:2]))
    assert torch.equal(method.center, other.center)
    assert first != second


def test_teacher_temperature_warms_up_linearly() -> None:
    method = dino(warmup_teacher_temperature=0.04, teacher_temperature=0.07, warmup_teacher=0.3)
    temperatures = [method.temperature(t) for t in (0.0, 0.15, 0.3, 0.9, 1.0)]
    assert temperatures == pytest.approx([0.04, 0.055, 0.07, 0.07, 0.07])
    assert dino(teacher_temperature=0.07, warmup_teacher=0.0).temperature(0.0) == pytest.approx(0.07)


@pytest.mark.parametrize("encoder", [VIT, RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("crops", [0, 3])
def test_two_global_views_and_the_local_ones(
    encoder: ResNetParams | ViTParams, crops: int, generator: Generator
) -> None:
    method = dino(encoder, local_crops=crops)
    views = views_of(method, noise_images(4, 20), generator)
    assert [v.shape for v in views] == [(4, 3, 16, 16)] * 2 + [(4, 3, 8, 8)] * crops
    assert all(not torch.equal(a, b) for a, b in pairwise(views))
    passes: list[int] = []
    method.student["encoder"].register_forward_hook(lambda _module, args, _out: passes.append(len(args[0])))
    assert method.loss(views, 0.0).isfinite()
    assert passes == [8, 4 * crops][: 1 + bool(crops)]  # one a size


def test_one_pass_a_size_is_a_pass_a_view(generator: Generator) -> None:
    method = dino().eval()
    views = views_of(method, noise_images(4, 16), generator)
    together = torch.cat(
        [method.student["head"](method.student["encoder"](x)) for (x,) in by_size([(v,) for v in views])]
    )
    apart = torch.cat([method.student["head"](method.student["encoder"](x)) for x in views])
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_last_layer_has_unit_rows_and_unit_inputs(batch_norm: bool, generator: Generator) -> None:
    params = DINOParams(VIT, 1, 4, OPTIM, head_hidden=16, head_bottleneck=8, head_dim=12, head_batch_norm=batch_norm)
    head = Head(64, params)
    assert sum(isinstance(m, nn.BatchNorm1d) for m in head.mlp) == 2 * batch_norm
    assert sum(isinstance(m, nn.Linear) for m in head.mlp) == 3
    assert not head.length.requires_grad
    assert head(100 * torch.randn(32, 64, generator=generator)).abs().max() <= 1  # cosines
    head.mlp = nn.Sequential()
    weight = head(5 * torch.eye(8)).T  # (12, 8)
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(12))
    with torch.no_grad():
        head.length.fill_(2.0)
    torch.testing.assert_close(head(torch.eye(8)).T, 2 * weight)


def test_the_last_layer_is_computed_in_fp32(generator: torch.Generator) -> None:
    head = Head(64, DINOParams(VIT, 1, 4, OPTIM, head_bottleneck=64, head_dim=512))
    head.mlp = nn.Sequential()
    z = torch.randn(8, 64, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(z)
    assert logits.dtype == torch.float32
    assert (logits - head(z)).abs().max() / 0.04 < 1e-4  # nats; bf16's products are 0.05 off


def test_views_are_those_of_the_paper() -> None:
    first, second, *local = DINOParams(VIT, 1, 4, OPTIM).views
    assert len(local) == 8
    assert (first.area, local[0].area) == ((0.4, 1.0), (0.05, 0.4))
    assert [law.blur for law in (first, second, local[0])] == [1.0, 0.1, 0.5]
    assert [law.solarize for law in (first, second, local[0])] == [0.0, 0.2, 0.0]
    assert first.strengths == (0.4, 0.4, 0.2, 0.1)


@pytest.mark.parametrize(
    ("name", "value"), [("momentum", 1.1), ("center_momentum", -0.1), ("teacher_temperature", 0.0)]
)
def test_impossible_parameters_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        dino(VIT, **{name: value})


def test_stochastic_depth_is_the_students_and_drawn_a_view(generator: Generator) -> None:
    method = dino(drop_path=0.5, local_crops=2).eval()
    plain = dino(local_crops=2).eval()
    plain.load_state_dict(method.state_dict())
    views = views_of(method, noise_images(64, 16), generator)
    assert [tuple(v.shape) for v in views[4:]] == [(64, 4, 2)] * 4
    last = torch.cat(views[4:])[:, -1]  # of the last block, whose rate is the whole one
    assert set(last.flatten().tolist()) == {0.0, 2.0}
    assert (last == 0).float().mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / last.numel()))
    kept = [torch.ones_like(v) for v in views[4:]]
    torch.testing.assert_close(method.loss(views[:4] + kept, 0.0), plain.loss(views[:4], 0.0))
    assert method.loss(views, 0.0) != plain.loss(views[:4], 0.0)
    torch.testing.assert_close(method.teacher_means[0], plain.teacher_means[0])


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_stochastic_depth_is_named(rate: float) -> None:
    with pytest.raises(ValueError, match=f"drop_path is {rate}; allowed"):
        dino(drop_path=rate)
    with pytest.raises(ValueError, match=r"drop_path is 0\.1; allowed"):
        dino(RESNET, drop_path=0.1)


def test_signals_are_entropies_of_the_teacher(generator: Generator) -> None:
    method = dino(center_momentum=0.9, teacher_temperature=0.07, warmup_teacher=0.0).eval()
    views = views_of(method, noise_images(6, 16), generator)
    method.center.normal_(generator=generator)
    with torch.no_grad():
        found = {k: v.item() for k, v in method.signals(views, 0.5).items()}
        student, teacher = method.outputs(views)
        loss = method.distil(student, teacher, 0.5).item()
    rows = [softmax(((teacher[g, i] - method.center) / 0.07).tolist()) for g in range(2) for i in range(6)]

    def entropy(p: list[float]) -> float:
        return -sum(x * math.log(x) for x in p if x)

    each = sum(map(entropy, rows)) / 12
    together = entropy([sum(column) / 12 for column in zip(*rows, strict=True)])
    assert found == pytest.approx(
        {
            "held_out_loss": loss,
            "relative_loss": loss / math.log(12),
            "teacher_entropy": each / math.log(12),
            "mean_teacher_entropy": together / math.log(12),
            "kl": loss - each,
            "gain": together - loss,
        },
        rel=1e-5,
    )
    assert found["kl"] > 0
    assert not method.teacher_means  # of these images no centre is taken


def test_signals_of_the_two_collapses(generator: Generator) -> None:
    method = dino(center_momentum=1.0).eval()
    views = views_of(method, noise_images(6, 16), generator)
    with torch.no_grad():
        method.center[3] = -1e6  # every output is the fourth
        one = method.signals(views, 1.0)
        method.center.zero_()
        for head in (method.student["head"], method.teacher["head"]):
            head.get_parameter("length").zero_()  # every output is uniform
        uniform = method.signals(views, 1.0)
    assert one["teacher_entropy"] == 0
    assert one["mean_teacher_entropy"] == 0
    assert uniform["teacher_entropy"].item() == pytest.approx(1)
    assert uniform["mean_teacher_entropy"].item() == pytest.approx(1)
    assert uniform["relative_loss"].item() == pytest.approx(1)
    assert uniform["gain"].item() == pytest.approx(0, abs=1e-6)
