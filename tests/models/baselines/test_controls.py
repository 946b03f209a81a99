"""The three controls that learn from labels: their losses against loops, and what they may and may not learn from."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor, nn

from models import optim
from models.baselines.fixmatch import GREY, FixMatch, FixMatchParams, consistency, cut_out
from models.baselines.pseudolabel import PseudoLabel, PseudoLabelParams, of_pseudo_labels
from models.baselines.supervised import UNLABELLED, SupervisedParams, cross_entropy, predict
from models.methods import CONTROLS, Control, ControlParams, control
from models.optim import OptimParams
from models.views.augmentation import ViewParams
from tests.models.conftest import OPTIM, RESNET, noise_images, small

PLAIN = ViewParams(area=(0.8, 1.0), flip=0.0)
STRONG = replace(PLAIN, area=(0.5, 1.0))
FIXMATCH = FixMatchParams(4, OPTIM, PLAIN, STRONG, unlabelled=2)
PARAMS: dict[str, ControlParams] = {
    "supervised": SupervisedParams(4, OPTIM, PLAIN),
    "pseudolabel": PseudoLabelParams(4, OPTIM, PLAIN, unlabelled=2),
    "fixmatch": FIXMATCH,
}
ALL = pytest.mark.parametrize("name", list(CONTROLS))


def probabilities(logits: list[float]) -> list[float]:
    powers = [math.exp(x) for x in logits]
    return [p / sum(powers) for p in powers]


def drawn(made: Control, images: Tensor, y: Tensor, seed: int = 0) -> list[Tensor]:
    """Views of images and their labels."""
    height, width = images.shape[2:]
    *draws, _ = made.draw(len(images), height, width, torch.Generator().manual_seed(seed))
    return made.views(images, [*draws, y])


def made_of(name: str, params: ControlParams | None = None, classes: int = 3) -> tuple[Control, nn.Module]:
    """Under both its types; a head that starts at almost nothing would hide what a gradient reaches."""
    made = control(name, small(RESNET), params or PARAMS[name], 16, classes, seed=0)
    assert isinstance(made, nn.Module)
    for p in made.parameters():
        if p.requires_grad and p.shape[0] == classes:
            nn.init.normal_(p)
    if isinstance(made, FixMatch):
        made.average.load_state_dict(made.student.state_dict())
    return made, made


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_the_loop_over_the_labelled(smoothing: float, generator: Generator) -> None:
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    y = torch.tensor([2, UNLABELLED, 0, 3, UNLABELLED, 3])
    total = 0.0
    for row, label in zip(logits.tolist(), y.tolist(), strict=True):
        if label >= 0:
            target = [smoothing / 4 + (1 - smoothing) * (k == label) for k in range(4)]
            total -= sum(q * math.log(p) for q, p in zip(target, probabilities(row), strict=True))
    assert cross_entropy(logits, y, smoothing).item() == pytest.approx(total / 4, rel=1e-12)


def test_without_a_label_there_is_nothing_to_learn() -> None:
    logits = torch.ones(3, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((3,), UNLABELLED), 0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize(
    ("progress", "alpha"), [(0.0, 0.0), (0.2, 0.0), (0.3, 0.75), (0.4, 1.5), (0.6, 3.0), (1.0, 3.0)]
)
def test_alpha_is_eq_16(progress: float, alpha: float) -> None:
    params = PseudoLabelParams(4, OPTIM, PLAIN, alpha=3.0, start=0.2, full=0.6)
    assert PseudoLabel(small(RESNET), params, 16, 3).weight(progress) == pytest.approx(alpha)


def test_pseudo_labels_are_the_likeliest_classes_of_the_unlabelled(generator: Generator) -> None:
    logits = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, UNLABELLED, UNLABELLED, 2, UNLABELLED])
    total = sum(-math.log(max(probabilities(logits[i].tolist()))) for i in (1, 2, 4))
    assert of_pseudo_labels(logits, y).item() == pytest.approx(total / 3, rel=1e-12)


def test_pseudo_label_loss_is_eq_15() -> None:
    made, module = made_of("pseudolabel")
    x, y = drawn(made, noise_images(12, 16), torch.tensor([0, 1, 2, 0] + [UNLABELLED] * 8))
    assert isinstance(made, PseudoLabel)
    logits = module(x)  # in train mode, as the loss
    expected = cross_entropy(logits[:4], y[:4]) + 1.5 * cross_entropy(logits[4:], logits[4:].argmax(dim=1))
    assert made.weight(0.35) == pytest.approx(1.5)
    torch.testing.assert_close(made.loss([x, y], 0.35), expected)
    torch.testing.assert_close(made.loss([x, y], 0.1), cross_entropy(logits[:4], y[:4]))


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


@ALL
def test_an_unlabelled_image_is_never_read_as_a_class(name: str) -> None:
    """With no unlabelled loss the classes of unlabelled images do not exist: the loss is that of the labelled alone."""
    silent: dict[str, ControlParams] = {
        "supervised": PARAMS["supervised"],
        "pseudolabel": PseudoLabelParams(4, OPTIM, PLAIN, unlabelled=2, alpha=0.0),
        "fixmatch": replace(FIXMATCH, weight=0.0),
    }
    made, module = made_of(name, silent[name])
    module.eval()  # batch norm would let the others in
    y = torch.tensor([2, 1, 0, 2] + [UNLABELLED] * 8)
    views = drawn(made, noise_images(12, 16), y)
    logits = module(views[0])
    torch.testing.assert_close(made.loss(views, 1.0), cross_entropy(logits[:4], y[:4]))


def colours(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Noisy images of three colours, and which."""
    y = torch.arange(n) % 3
    images = torch.randint(80, (n, 3, 16, 16), generator=generator)
    images[torch.arange(n), y] += 150
    return images.byte(), y


@ALL
def test_what_is_separable_is_learnt(name: str, generator: Generator) -> None:
    recipe = OptimParams("adamw", 0.01, 0.0, warmup=0.1, layer_decay=0.9)
    params = replace(PARAMS[name], optim=recipe)
    if isinstance(params, FixMatchParams):
        params = replace(params, momentum=0.8)
    made = control(name, small(RESNET), params, 16, 3, seed=0)
    assert isinstance(made, nn.Module)
    optimizer = optim.build(recipe, made)
    steps = 60
    for step in range(steps):
        images, y = colours(12, generator)
        known = torch.where(torch.arange(12) < 4, y, UNLABELLED)
        optim.set_schedule(optimizer, recipe, 4, step / steps)
        made.train()
        made.loss(drawn(made, images, known, seed=step), step / steps).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        made.after_step(step / steps)
    images, y = colours(60, generator)
    assert torch.equal(predict(made, images), y)


@ALL
def test_a_seed_is_the_head_and_touches_no_other_randomness(name: str) -> None:
    encoder, state = small(RESNET), torch.get_rng_state()
    first, again, other = (control(name, encoder, PARAMS[name], 16, 3, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [made.state_dict() for made in (first, again, other) if isinstance(made, nn.Module)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert any(not torch.equal(weights[0][k], weights[2][k]) for k in weights[0])


@ALL
def test_the_loss_is_full_precision_under_bf16(name: str) -> None:
    made, _ = made_of(name)
    views = drawn(made, noise_images(12, 16), torch.tensor([2, 1, 0, 2] + [UNLABELLED] * 8))
    with torch.autocast("cpu", torch.bfloat16):
        loss = made.loss(views, 1.0)
    assert loss.dtype == torch.float32
    assert loss.isfinite()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: SupervisedParams(0, OPTIM, PLAIN), "batch_size is 0"),
        (lambda: SupervisedParams(4, OPTIM, PLAIN, label_smoothing=1.0), r"label_smoothing is 1\.0"),
        (lambda: SupervisedParams(4, OPTIM, PLAIN, accumulate=3), "batch_size is 4; allowed: a multiple of accumulate"),
        (lambda: PseudoLabelParams(4, OPTIM, PLAIN, start=0.6, full=0.6), r"start is 0\.6, full 0\.6"),
        (lambda: PseudoLabelParams(4, OPTIM, PLAIN, unlabelled=0), "unlabelled is 0"),
        (lambda: replace(FIXMATCH, threshold=1.5), r"threshold is 1\.5"),
        (lambda: replace(FIXMATCH, momentum=-0.1), r"momentum is -0\.1"),
    ],
)
def test_impossible_parameters_are_named(change: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        change()  # type: ignore[operator]
