"""NT-Xent against eq. 1 written out, and the parts of SimCLR that the paper fixes."""

import math
from itertools import pairwise
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from models.methods.simclr import SimCLR, SimCLRParams, nt_xent, projection
from tests.models.conftest import OPTIM, RESNET, noise_images, small, views_of


def eq_1(z1: Tensor, z2: Tensor, temperature: float) -> float:
    z: list[list[float]] = torch.cat([z1, z2]).tolist()
    n = len(z1)

    def similarity(i: int, j: int) -> float:
        dot = sum(a * b for a, b in zip(z[i], z[j], strict=True))
        return dot / math.hypot(*z[i]) / math.hypot(*z[j]) / temperature

    total = 0.0
    for i in range(2 * n):
        others = sum(math.exp(similarity(i, k)) for k in range(2 * n) if k != i)
        total += math.log(others) - similarity(i, (i + n) % (2 * n))
    return total / (2 * n)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0])
def test_nt_xent_is_eq_1(temperature: float, generator: Generator) -> None:
    z1, z2 = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    assert nt_xent(z1, z2, temperature).item() == pytest.approx(eq_1(z1, z2, temperature), rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 16])
def test_identical_embeddings_cost_the_log_of_the_candidates(n: int) -> None:
    z = torch.ones(n, 8)
    assert nt_xent(z, z, 0.5).item() == pytest.approx(math.log(2 * n - 1), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_aligned_orthogonal_pairs(temperature: float) -> None:
    n = 8
    z = 3 * torch.eye(n, dtype=torch.float64)
    expected = math.log1p((2 * n - 2) * math.exp(-1 / temperature))
    assert nt_xent(z, z, temperature).item() == pytest.approx(expected, rel=1e-12)


def test_nt_xent_knows_neither_length_nor_order(generator: Generator) -> None:
    z1, z2 = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    loss = nt_xent(z1, z2, 0.5)
    shuffled = torch.randperm(6, generator=generator)
    torch.testing.assert_close(nt_xent(3 * z1, 0.1 * z2, 0.5), loss)
    torch.testing.assert_close(nt_xent(z2, z1, 0.5), loss)
    torch.testing.assert_close(nt_xent(z1[shuffled], z2[shuffled], 0.5), loss)
    assert not torch.isclose(nt_xent(z1[shuffled], z2, 0.5), loss)


def test_nt_xent_has_the_gradient_of_its_value(generator: Generator) -> None:
    z1, z2 = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.5), (z1, z2))


def test_nt_xent_is_computed_in_full_precision_under_bf16(generator: Generator) -> None:
    z1, z2 = torch.randn(2, 8, 16, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(z1, z2, 0.1)
    assert torch.equal(loss, nt_xent(z1, z2, 0.1))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_head_norms_every_layer_and_the_last_norm_has_no_offset(layers: Literal[1, 2, 3]) -> None:
    head = projection(12, 20, 6, layers)
    linear = [m for m in head if isinstance(m, nn.Linear)]
    norms = [m for m in head if isinstance(m, nn.BatchNorm1d)]
    widths = [12] + [20] * (layers - 1) + [6]
    assert [(m.in_features, m.out_features) for m in linear] == list(pairwise(widths))
    assert all(m.bias is None for m in linear)
    assert [m.num_features for m in norms] == [20] * (layers - 1) + [6]
    assert [m.bias is None for m in norms] == [False] * (layers - 1) + [True]
    assert [type(m) for m in head][-2:] == [nn.Linear, nn.BatchNorm1d]  # no ReLU after the last
    assert sum(isinstance(m, nn.ReLU) for m in head) == layers - 1


def test_without_a_head_z_is_h(generator: Generator) -> None:
    method = SimCLR(small(RESNET), SimCLRParams(RESNET, 1, 5, OPTIM, head_layers=0), 16).eval()
    assert not list(method.head.parameters())
    views = views_of(method, noise_images(5, 20), generator)
    h = method.encoder(torch.cat(views))
    assert torch.equal(method.head(h), h)
    assert method.loss(views, 0.0) == nt_xent(h[:5], h[5:], 0.5)


def params(**changes: object) -> SimCLRParams:
    """Nothing is augmented but by these."""
    off = {"area": (1.0, 1.0), "flip": 0.0, "strength": 0.0, "grey": 0.0, "blur": 0.0}
    return SimCLRParams(RESNET, 1, 6, OPTIM, **(off | changes))  # type: ignore[arg-type]


ALONE: dict[str, dict[str, object]] = {
    "crop": {"area": (0.08, 1.0), "flip": 0.5},
    "cutout": {"cutout": 1.0},
    "colour": {"strength": 1.0, "grey": 0.2},
    "sobel": {"sobel": 1.0},
    "noise": {"noise": 1.0},
    "blur": {"blur": 1.0},
    "rotate": {"quarter_turn": 1.0},
}


@pytest.mark.parametrize("name", ALONE)
def test_each_augmentation_of_figure_5_alone_in_one_branch(name: str, generator: Generator) -> None:
    images = noise_images(6, 24)
    method = SimCLR(small(RESNET, 24), params(one_branch=True, **ALONE[name]), 24)
    first, second = views_of(method, images, generator)
    torch.testing.assert_close(second, images / 255, rtol=0, atol=1e-5)
    changed = (first - second).abs().amax(dim=(1, 2, 3)) > 0.01
    assert changed.all() if name != "colour" else changed.any()  # colours change with probability 0.8, as always


def test_with_every_augmentation_off_both_views_are_the_image(generator: Generator) -> None:
    images = noise_images(6, 16)
    for view in views_of(SimCLR(small(RESNET), params(), 16), images, generator):
        torch.testing.assert_close(view, images / 255, rtol=0, atol=1e-5)


def test_two_different_views_in_one_pass(generator: Generator) -> None:
    method = SimCLR(small(RESNET), SimCLRParams(RESNET, 1, 5, OPTIM, head_hidden=16, head_dim=8), 16)
    views = views_of(method, noise_images(5, 20), generator)
    assert [v.shape for v in views] == [(5, 3, 16, 16)] * 2
    assert (views[0] - views[1]).abs().amax(dim=(1, 2, 3)).min() > 0.01  # of every image
    seen: list[Tensor] = []
    method.encoder.register_forward_hook(lambda _module, args, _out: seen.append(args[0]))
    method.loss(views, 0.0)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], torch.cat(views))


def test_colour_jitter_is_that_of_appendix_a() -> None:
    views = SimCLRParams(RESNET, 1, 5, OPTIM, strength=0.5).views
    assert views.jitter == 0.8
    assert views.strengths == pytest.approx((0.4, 0.4, 0.4, 0.1))
    assert (views.area, views.grey, views.blur, views.sigma) == ((0.08, 1.0), 0.2, 0.5, (0.1, 2.0))


def test_impossible_parameters_are_named() -> None:
    with pytest.raises(ValueError, match="temperature is 0"):
        SimCLRParams(RESNET, 1, 5, OPTIM, temperature=0)
    with pytest.raises(ValueError, match="area is"):
        SimCLRParams(RESNET, 1, 5, OPTIM, area=(0.5, 1.5))


def test_signals_tell_one_that_knows_nothing_from_one_that_knows_all(generator: Generator) -> None:
    method = SimCLR(small(RESNET), SimCLRParams(RESNET, 1, 8, OPTIM, temperature=0.1), 16).eval()
    views = views_of(method, noise_images(8, 16), generator)
    with torch.no_grad():
        z = F.normalize(method.head(method.encoder(torch.cat(views))), dim=1)
        same = method.signals([views[0], views[0]], 0.0)
        found = method.signals(views, 0.0)
        method.head.get_parameter("4.weight").zero_()  # every z is the same
        blind = method.signals(views, 0.0)
    nearest = [max((j for j in range(16) if j != i), key=lambda j: float(z[i] @ z[j])) for i in range(16)]
    assert found["top_1"].item() == pytest.approx(sum(j == (i + 8) % 16 for i, j in enumerate(nearest)) / 16)
    assert same["top_1"] == 1
    assert same["embedding_alignment"] == 0
    assert blind["relative_loss"].item() == pytest.approx(1)
    assert blind["held_out_loss"].item() == pytest.approx(math.log(15))
