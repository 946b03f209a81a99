"""The three baselines that learn from labels: their losses equal loops, and what they may not learn from."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from models import optim, start
from models.baselines.fixmatch import FixMatchParams
from models.baselines.pseudolabel import PseudoLabel, PseudoLabelParams, of_pseudo_labels
from models.baselines.supervised import UNLABELLED, SupervisedParams, cross_entropy, predict
from models.methods import BASELINES, BaselineParams
from models.optim import OptimParams
from tests.models.baselines.tiny_baselines import FIXMATCH, PARAMS, PLAIN, drawn, made_of, probabilities
from tests.models.conftest import OPTIM, RESNET, noise_images, small

ALL = pytest.mark.parametrize("name", list(BASELINES))


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


@ALL
def test_an_unlabelled_image_is_never_read_as_a_class(name: str) -> None:
    """With no unlabelled loss the classes of unlabelled images do not exist: the loss is that of the labelled alone."""
    silent: dict[str, BaselineParams] = {
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
    made = start.baseline(name, small(RESNET), params, 16, 3, seed=0)
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
    first, again, other = (start.baseline(name, encoder, PARAMS[name], 16, 3, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [made.state_dict() for made in (first, again, other)]
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
    ("change", "sentence"),
    [
        (lambda: SupervisedParams(0, OPTIM, PLAIN), "batch_size is 0"),
        (lambda: SupervisedParams(4, OPTIM, PLAIN, label_smoothing=1.0), r"label_smoothing is 1\.0"),
        (lambda: SupervisedParams(4, OPTIM, PLAIN, accumulate=3), "batch_size is 4. Allowed: a multiple of accumulate"),
        (lambda: PseudoLabelParams(4, OPTIM, PLAIN, start=0.6, full=0.6), r"start is 0\.6, full 0\.6"),
        (lambda: PseudoLabelParams(4, OPTIM, PLAIN, unlabelled=0), "unlabelled is 0"),
        (lambda: replace(FIXMATCH, threshold=1.5), r"threshold is 1\.5"),
        (lambda: replace(FIXMATCH, momentum=-0.1), r"momentum is -0\.1"),
    ],
)
def test_impossible_parameters_are_named(change: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        change()  # type: ignore[operator]
