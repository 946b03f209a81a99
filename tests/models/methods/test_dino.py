"""Distillation equals eq. 3 written out; the teacher, its centre and its signals."""

import math

import pytest
import torch
from torch import Generator, Tensor

from models.methods.dino import distillation
from tests.models.conftest import RESNET, VIT, noise_images, views_of
from tests.models.methods.tiny_dino import dino


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
    loss = distillation(student, teacher, center, tau_s=0.7, tau_t=0.4)
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
    temperatures = [method.temperatures(t)[1] for t in (0.0, 0.15, 0.3, 0.9, 1.0)]
    assert temperatures == pytest.approx([0.04, 0.055, 0.07, 0.07, 0.07])
    assert dino(teacher_temperature=0.07, warmup_teacher=0.0).temperatures(0.0) == pytest.approx((0.1, 0.07))


@pytest.mark.parametrize(
    ("name", "value"), [("momentum", 1.1), ("center_momentum", -0.1), ("teacher_temperature", 0.0)]
)
def test_impossible_parameters_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        dino(VIT, **{name: value})


def test_signals_are_entropies_of_the_teacher(generator: Generator) -> None:
    method = dino(center_momentum=0.9, teacher_temperature=0.07, warmup_teacher=0.0).eval()
    views = views_of(method, noise_images(6, 16), generator)
    method.center.normal_(generator=generator)
    with torch.no_grad():
        found = {k: v.item() for k, v in method.signals(views, 0.5).items()}
        student, teacher = method.outputs(views)
        loss = distillation(student, teacher, method.center, *method.temperatures(0.5)).item()
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
