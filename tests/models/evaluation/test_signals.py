"""Label-free figures against their published formulae, written out in loops, and where they are known."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import hyp0f1
from torch import Generator, Tensor

from models import signals


@pytest.fixture
def pair(generator: Generator) -> tuple[Tensor, Tensor]:
    """Features (40, 6) of two views that have much in common."""
    a = torch.randn(40, 6, generator=generator, dtype=torch.float64) + 0.5
    return a, a + 0.4 * torch.randn(40, 6, generator=generator, dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def test_effective_rank_is_rankme(pair: tuple[Tensor, Tensor]) -> None:
    values = np.linalg.svd(pair[0].numpy(), compute_uv=False)
    entropy = 0.0
    for value in values:  # Garrido 2023, eq. 2; its ε of 1e-7 is for zeros
        p = value / values.sum() + 1e-7
        entropy -= p * math.log(p)
    assert signals.effective_rank(pair[0]).item() == pytest.approx(math.exp(entropy), rel=1e-5)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_of_equal_directions_is_their_number(rank: int, generator: Generator) -> None:
    directions = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))[0][:rank]
    assert signals.effective_rank(7 * directions).item() == pytest.approx(rank, rel=1e-9)
    assert signals.effective_rank(directions.repeat(5, 1)).item() == pytest.approx(rank, rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_have_no_rank(value: float) -> None:
    x = torch.ones(4, 3)
    x[1, 1] = value
    assert signals.effective_rank(x).isnan()


def test_feature_std_is_simsiams(pair: tuple[Tensor, Tensor]) -> None:
    z = (pair[0] / pair[0].norm(dim=1, keepdim=True)).numpy()
    expected = math.sqrt(6) * np.mean([np.std(z[:, d], ddof=1) for d in range(6)])
    assert signals.feature_std(pair[0]).item() == pytest.approx(expected, rel=1e-12)


def test_features_all_over_the_sphere_and_features_in_one_place(generator: Generator) -> None:
    x = torch.randn(4000, 64, generator=generator)
    assert signals.feature_std(x).item() == pytest.approx(1, abs=0.01)
    assert signals.mean_cosine(x).item() == pytest.approx(0, abs=0.001)
    same = x[:1].expand(50, 64)
    known = {"effective_rank": 1, "feature_std": 0, "feature_cosine": 1, "alignment": 0, "uniformity": 0}
    found = signals.common(same, 3 * same)  # a length is no difference
    assert {name: found[name].item() for name in known} == pytest.approx(known, abs=1e-3)


def test_mean_cosine_is_over_pairs_of_different_images(pair: tuple[Tensor, Tensor]) -> None:
    x = pair[0]
    expected = np.mean([cosine(x[i], x[j]) for i in range(40) for j in range(40) if i != j])
    assert signals.mean_cosine(x).item() == pytest.approx(expected, rel=1e-12)


def test_alignment_and_uniformity_are_wang_and_isolas(pair: tuple[Tensor, Tensor]) -> None:
    a, b = pair
    distance = np.mean([2 - 2 * cosine(x, y) for x, y in zip(a, b, strict=True)])
    potential = np.mean([math.exp(-2 * (2 - 2 * cosine(a[i], a[j]))) for i in range(40) for j in range(i)])
    assert signals.alignment(a, b).item() == pytest.approx(distance, rel=1e-12)
    assert signals.uniformity(a).item() == pytest.approx(math.log(potential), rel=1e-12)


@pytest.mark.parametrize(("dim", "within"), [(64, 0.012), (512, 0.003)])
def test_uniformity_of_an_even_spread_is_that_of_the_sphere(dim: int, within: float, generator: Generator) -> None:
    """E exp(-4 + 4s) of a random cosine s is exp(-4) 0F1(D/2; 4), whose logarithm is about -4 + 8/D."""
    x = torch.randn(3000, dim, generator=generator)
    assert signals.uniformity(x).item() == pytest.approx(-4 + math.log(hyp0f1(dim / 2, 4.0)), abs=within / 4)
    assert signals.uniformity(x).item() == pytest.approx(-4 + 8 / dim, abs=within)


def test_consistency_counts_the_neighbours_that_two_views_share(pair: tuple[Tensor, Tensor]) -> None:
    def nearest(x: Tensor, i: int) -> set[int]:
        return set(sorted((j for j in range(40) if j != i), key=lambda j: -cosine(x[i], x[j]))[:5])

    shared = np.mean([len(nearest(pair[0], i) & nearest(pair[1], i)) / 5 for i in range(40)])
    expected = 100 * (shared - 5 / 39) / (1 - 5 / 39)
    assert signals.consistency(*pair, k=5).item() == pytest.approx(expected, rel=1e-6)
    assert 0 < expected < 100


def test_consistency_is_100_for_one_view_and_0_by_chance(pair: tuple[Tensor, Tensor], generator: Generator) -> None:
    assert signals.consistency(pair[0], 2 * pair[0]).item() == pytest.approx(100)
    a, b = torch.randn(2, 500, 16, generator=generator)
    assert signals.consistency(a, b).item() == pytest.approx(0, abs=1)  # sd 0.2


@pytest.mark.parametrize("n", [4, 5, 12])
def test_few_images_have_few_neighbours(n: int, generator: Generator) -> None:
    a, b = torch.randn(2, n, 3, generator=generator)
    assert signals.consistency(a, a).item() == pytest.approx(100)
    assert signals.consistency(a, b).isfinite()


@pytest.mark.parametrize("measure", [signals.effective_rank, signals.uniformity, signals.feature_std])
def test_bf16_features_are_measured_in_fp32(measure: Callable[[Tensor], Tensor], generator: Generator) -> None:
    x = torch.randn(20, 5, generator=generator).bfloat16()
    assert measure(x).dtype == torch.float32
    torch.testing.assert_close(measure(x), measure(x.float()))
