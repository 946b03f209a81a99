"""FixMatch: its loss equals a loop, its weak view teaches, its average predicts."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from models import optim
from models.baselines.fixmatch import FixMatch, consistency
from models.baselines.supervised import UNLABELLED, cross_entropy, predict
from models.views.distortion import GREY, cut_out
from tests.models.baselines.tiny_baselines import FIXMATCH, drawn, made_of, probabilities
from tests.models.conftest import OPTIM, noise_images


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.95])
def test_consistency_is_eq_4(threshold: float, generator: Generator) -> None:
    weak, strong = 3 * torch.randn(2, 20, 4, generator=generator, dtype=torch.float64)
    total, sure = 0.0, 0
    for w, s in zip(weak.tolist(), strong.tolist(), strict=True):
        q = probabilities(w)
        if max(q) >= threshold:
            total -= math.log(probabilities(s)[q.index(max(q))])
            sure += 1
    assert threshold == 0 or 0 < sure < 20  # or the threshold decides nothing
    assert consistency(weak, strong, threshold).item() == pytest.approx(total / 20, rel=1e-12)


def test_the_weak_view_is_the_teacher_and_learns_nothing(generator: Generator) -> None:
    weak, strong = torch.randn(2, 20, 4, generator=generator).requires_grad_(True).unbind()
    weak.retain_grad()
    strong.retain_grad()
    consistency(weak, strong, 0.4).backward()  # type: ignore[no-untyped-call]
    assert weak.grad is None
    assert strong.grad is not None
    sure = weak.softmax(dim=1).amax(dim=1) >= 0.4
    assert torch.equal(strong.grad.abs().sum(dim=1) > 0, sure)
    assert 0 < sure.sum() < 20


def test_fixmatch_sees_weak_views_of_all_and_strong_ones_of_the_unlabelled_in_one_pass() -> None:
    made, _ = made_of("fixmatch", replace(FIXMATCH, cutout=0.0, threshold=0.0, weight=2.0))
    assert isinstance(made, FixMatch)
    images, y = noise_images(12, 16), torch.tensor([0, 1, 2, 0] + [UNLABELLED] * 8)
    weak, strong, labels = drawn(made, images, y)
    assert (weak.shape, strong.shape) == ((12, 3, 16, 16), (8, 3, 16, 16))
    assert torch.equal(labels, y)
    seen: list[Tensor] = []
    made.student.register_forward_hook(lambda _module, args, _out: seen.append(args[0]))
    loss = made.loss([weak, strong, labels], 0.5)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], torch.cat([weak, strong]))
    logits = made.student(seen[0])
    expected = cross_entropy(logits[:4], y[:4]) + 2 * cross_entropy(logits[12:], logits[4:12].argmax(dim=1))
    torch.testing.assert_close(loss, expected)


def test_fixmatch_predicts_by_the_average_which_no_gradient_reaches() -> None:
    made, module = made_of("fixmatch", replace(FIXMATCH, momentum=0.75))
    assert isinstance(made, FixMatch)
    before = [p.clone() for p in made.average.parameters()]
    made.loss(drawn(made, noise_images(12, 16), torch.tensor([0] * 4 + [UNLABELLED] * 8)), 0.5).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in made.average.parameters())
    optim.build(OPTIM, module).step()
    made.after_step(0.5)
    for was, own, average in zip(before, made.student.parameters(), made.average.parameters(), strict=True):
        torch.testing.assert_close(average, 0.75 * was + 0.25 * own)
    assert all(torch.equal(a, b) for a, b in zip(made.average.buffers(), made.student.buffers(), strict=True))
    images = noise_images(4, 16)
    assert torch.equal(predict(module, images), made.average.eval()(images).argmax(dim=1))


def test_cutout_leaves_grey_where_the_square_is() -> None:
    x = torch.ones(3, 3, 8, 8)
    draws = torch.tensor([[0.5, 0.25, 1.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])  # the middle's row, column, the side
    out = cut_out(x, draws, 0.5)
    expected = x.clone()
    expected[0, :, 2:6, 0:4] = GREY
    expected[1, :, :2, :2] = GREY  # three quarters of it are outside
    assert torch.equal(out, expected)
    assert torch.equal(cut_out(x, draws, 0.0), x)


def test_cutout_of_half_the_side_hides_a_fifteenth_where_the_official_one_hides_a_fifth(generator: Generator) -> None:
    """A square of side a about a uniform middle covers (a - a² / 4)² of the unit square on average."""
    ours, theirs = 1 / 12 - 1 / 64 + 1 / 1280, (1 / 2 - 1 / 16) ** 2  # a even in [0, 1/2]; a = 1/2
    assert (round(100 * ours, 1), round(100 * theirs, 1)) == (6.8, 19.1)
    draws = torch.rand(4000, 3, generator=generator)
    for side, share in ((draws[:, 2:], ours), (torch.ones(4000, 1), theirs)):
        hidden = cut_out(torch.zeros(4000, 3, 32, 32), torch.cat([draws[:, :2], side], dim=1), 0.5) == GREY
        assert hidden.double().mean().item() == pytest.approx(share, rel=0.05)
