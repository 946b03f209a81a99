"""DINO's four teachers (figure 6), and what is left without centring and without sharpening (figure 7)."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models import optim
from models.methods.dino import DINO
from models.optim import OptimParams, cosine
from tests.models.conftest import noise_images, views_of
from tests.models.methods.tiny_dino import dino

FAST = OptimParams("adamw", 0.01, 0.05)
STEPS, EPOCH = 6, 2  # steps of the run, steps of an epoch
Weights = list[Tensor]
TEACHERS = pytest.mark.parametrize("teacher", ["momentum", "copy", "iteration", "epoch"])


def copied(module: torch.nn.Module) -> Weights:
    return [p.detach().clone() for p in module.parameters()]


def equal(a: Weights, b: Weights) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def steps(method: DINO, optimizer: torch.optim.Optimizer, which: range) -> Iterator[float]:
    """The loss of each step, as the training loop does it."""
    for step in which:
        views = views_of(method, noise_images(4, 16, step), torch.Generator().manual_seed(step))
        loss = method.loss(views, step / STEPS)
        loss.backward()  # type: ignore[no-untyped-call]
        method.before_step(step / STEPS)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step / STEPS)
        if (step + 1) % EPOCH == 0:
            method.after_epoch()
        yield loss.item()


def weights_of(teacher: str) -> tuple[list[Weights], list[Weights]]:
    """Student and teacher before each step, and after the last."""
    method = dino(teacher=teacher, momentum=0.9)
    optimizer = optim.build(FAST, method)
    students, teachers = [copied(method.student)], [copied(method.teacher)]
    for _ in steps(method, optimizer, range(STEPS)):
        students.append(copied(method.student))
        teachers.append(copied(method.teacher))
    return students, teachers


def test_each_teacher_is_the_student_of_its_moment() -> None:
    for teacher in ("copy", "iteration", "epoch"):
        students, teachers = weights_of(teacher)
        assert not any(equal(students[t], students[t + 1]) for t in range(STEPS))
        for t in range(STEPS + 1):
            moment = {"copy": t, "iteration": max(0, t - 1), "epoch": t - t % EPOCH}[teacher]
            assert equal(teachers[t], students[moment]), (teacher, t)


def test_the_momentum_teacher_is_the_average_of_all_students() -> None:
    students, teachers = weights_of("momentum")
    expected = [w.double() for w in students[0]]
    for t in range(STEPS):
        m = cosine(0.9, 1.0, t / STEPS)
        expected = [m * old + (1 - m) * new.double() for old, new in zip(expected, students[t + 1], strict=True)]
    for ours, theirs in zip(teachers[-1], expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)


@TEACHERS
@pytest.mark.parametrize("stopped", [3, 4])  # inside an epoch, and at the end of one
def test_every_teacher_goes_on_to_the_same_numbers(teacher: str, stopped: int) -> None:
    method, other = dino(teacher=teacher), dino(teacher=teacher)
    optimizer, other_optimizer = optim.build(FAST, method), optim.build(FAST, other)
    list(steps(method, optimizer, range(stopped)))
    other.load_state_dict(deepcopy(method.state_dict()))
    other_optimizer.load_state_dict(deepcopy(optimizer.state_dict()))
    expected = list(steps(method, optimizer, range(stopped, STEPS)))
    assert list(steps(other, other_optimizer, range(stopped, STEPS))) == expected
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in method.state_dict().items())


@TEACHERS
def test_no_gradient_flows_through_any_teacher(teacher: str) -> None:
    method = dino(teacher=teacher)
    list(steps(method, optim.build(FAST, method), range(STEPS)))
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())
    assert not {id(p) for p in method.teacher.parameters()} & {id(p) for p in method.student.parameters()}


def test_without_centring_the_centre_stays_zero() -> None:
    method = dino(center_momentum=1.0)
    list(steps(method, optim.build(FAST, method), range(STEPS)))
    assert torch.equal(method.center, torch.zeros(12))


def test_without_sharpening_a_teacher_is_no_surer_than_a_student_that_is_its_copy() -> None:
    method = dino(teacher="copy", center_momentum=1.0, teacher_temperature=0.1, warmup_teacher_temperature=0.1).eval()
    sharp = dino(teacher="copy", center_momentum=1.0).eval()
    sharp.load_state_dict(method.state_dict())
    same = views_of(method, noise_images(6, 16), torch.Generator().manual_seed(0))[:1] * 2
    for each in (method, sharp):
        each.params = replace(each.params, local_crops=0)
    with torch.no_grad():
        assert method.signals(same, 0.9)["kl"].item() == pytest.approx(0, abs=1e-6)  # P_t = P_s
        assert sharp.signals(same, 0.9)["kl"].item() > 0.01


def test_an_unsteady_teacher_is_named() -> None:
    now = {"teacher_entropy": 0.5, "mean_teacher_entropy": 0.3, "gain": 0.1, "kl": 0.1, "held_out_loss": 1.0}
    for teacher, change in (("momentum", "Raise dino.momentum (now 0.1"), ("copy", "Change dino.teacher (now copy)")):
        params = dino(teacher=teacher, momentum=0.1).params
        assert change in next(iter(params.faults([now], now))).change
