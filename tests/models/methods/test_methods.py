"""What the training loop may rely on, the same for all three methods."""

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Generator, nn

from models import optim, start
from models.method import MethodParams, Pretraining
from models.methods import METHODS
from models.methods.dino import DINOParams
from models.methods.mae import MAEParams
from models.methods.simclr import SimCLRParams
from tests.models.conftest import MEAN, OPTIM, RESNET, STD, VIT, noise_images, small, views_of

DINO_PARAMS = DINOParams(
    VIT, 1, 16, OPTIM, local_crops=1, local_size=8, head_hidden=32, head_bottleneck=16, head_dim=24,
    freeze_last_layer=0.0,
)  # fmt: skip
PARAMS: dict[str, MethodParams] = {
    "simclr": SimCLRParams(RESNET, 1, 16, OPTIM, head_hidden=32, head_dim=16),
    "mae": MAEParams(VIT, 1, 16, OPTIM, decoder_dim=32, decoder_depth=1, decoder_heads=2),
    "dino": DINO_PARAMS,
}
ALL = pytest.mark.parametrize("name", list(METHODS))


def method(name: str, seed: int = 0) -> tuple[Pretraining, nn.Module]:
    """The method under both its types."""
    made = start.method(name, PARAMS[name], 16, MEAN, STD, seed)
    return made, made


@ALL
def test_a_seed_is_the_weights_and_touches_no_other_randomness(name: str) -> None:
    state = torch.get_rng_state()
    first, again, other = (method(name, seed)[1].state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    later = method(name, 3)[1].state_dict()
    assert all(torch.equal(first[k], again[k]) and torch.equal(first[k], later[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


@ALL
def test_views_are_of_the_generator_and_of_the_images_size(name: str) -> None:
    made, _ = method(name)
    images = noise_images(4, 20)
    first, again = (views_of(made, images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (4, 3, 16, 16)


@ALL
def test_a_step_against_the_gradient_lowers_the_loss(name: str, generator: Generator) -> None:
    # A centre that moves is another loss, and sharp temperatures bend it too much for a step to be small.
    smooth = replace(
        DINO_PARAMS, center_momentum=1.0, student_temperature=1.0, teacher_temperature=1.0, warmup_teacher=0.0
    )
    made = start.method(name, smooth if name == "dino" else PARAMS[name], 16, MEAN, STD, seed=0)
    made.double()  # for small steps: the bottleneck is tiny before its normalisation, which makes gradients large
    views = [v.double() for v in views_of(made, noise_images(16, 16), generator)]
    sgd = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=1e-7)
    losses = []
    for _ in range(5):
        loss = made.loss(views, 0.5)
        sgd.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        sgd.step()
        losses.append(loss.item())
    assert all(b < a for a, b in pairwise(losses))


@ALL
def test_the_loss_is_full_precision_under_bf16(name: str, generator: Generator) -> None:
    made, _ = method(name)
    views = views_of(made, noise_images(8, 16), generator)
    with torch.autocast("cpu", torch.bfloat16):
        loss = made.loss(views, 0.5)
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def train(made: Pretraining, optimizer: torch.optim.Optimizer, generator: Generator, steps: range) -> list[float]:
    losses = []
    for step in steps:
        loss = made.loss(views_of(made, noise_images(16, 16), generator), step / 6)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        made.after_step(step / 6)
        losses.append(loss.item())
    return losses


@ALL
def test_a_resumed_run_goes_on_to_the_same_numbers(name: str) -> None:
    made, module = method(name)
    generator, optimizer = torch.Generator().manual_seed(0), optim.build(OPTIM, module)
    train(made, optimizer, generator, range(3))
    weights, moments, state = deepcopy((module.state_dict(), optimizer.state_dict(), generator.get_state()))
    other, other_module = method(name, seed=9)
    other_optimizer = optim.build(OPTIM, other_module)
    other_module.load_state_dict(weights)
    other_optimizer.load_state_dict(moments)
    other_generator = torch.Generator()
    other_generator.set_state(state)
    resumed = train(other, other_optimizer, other_generator, range(3, 6))
    assert resumed == train(made, optimizer, generator, range(3, 6))
    assert all(torch.equal(v, other_module.state_dict()[k]) for k, v in module.state_dict().items())


@ALL
def test_signals_are_of_the_loss_as_it_trains_and_change_nothing(name: str, generator: Generator) -> None:
    made, module = method(name)
    train(made, optim.build(OPTIM, module), generator, range(2))  # statistics, a centre
    module.eval()
    views = views_of(made, noise_images(12, 16), generator)
    before, state = deepcopy(module.state_dict()), torch.get_rng_state()
    with torch.no_grad():
        found = made.signals(views, 0.5)
        again = made.signals(views, 0.5)
        assert found["held_out_loss"].item() == pytest.approx(made.loss(views, 0.5).item(), rel=1e-6)
    assert all(torch.equal(found[k], again[k]) and found[k].ndim == 0 for k in found)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert {"held_out_loss", "relative_loss"} <= found.keys()


def test_a_method_that_lacks_a_part_is_refused_when_it_is_made() -> None:
    class Half(Pretraining):
        def draw(self, n: int, height: int, width: int, generator: Generator) -> list[torch.Tensor]:
            return []

    with pytest.raises(TypeError, match=r"abstract method.* (loss|'loss').*(signals|'signals').*(views|'views')"):
        Half(small(VIT), PARAMS["mae"], 16)  # type: ignore[abstract]
