"""Health checks of features without labels: pure functions of (n, D) features, each one number.

Two views are of the same images, row by row.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.precision import at_least_fp32


def common(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """The figures that every method has, from an encoder's features (n, D) of two views of n images."""
    return {
        "effective_rank": effective_rank(a),
        "feature_std": feature_std(a),
        "feature_cosine": mean_cosine(a),
        "alignment": alignment(a, b),
        "uniformity": uniformity(a),
        "consistency": consistency(a, b),
    }


def effective_rank(x: Tensor) -> Tensor:
    """exp of the entropy of the singular values normalised to sum 1: RankMe (Garrido 2023, eq. 2), from 1 to min(n, D).

    Not a number where x is not finite.
    """
    x = at_least_fp32(x)
    values = torch.linalg.svdvals(x.nan_to_num(0, 0, 0))
    p = values / values.sum() + 0 * x.sum()
    entropy: Tensor = torch.special.entr(p).sum()
    return entropy.exp()


def feature_std(x: Tensor) -> Tensor:
    """Standard deviation of the features of length 1, mean over the dimensions, times √D (Chen & He 2021, SimSiam).

    1: spread evenly over the sphere; 0: all features are the same.
    """
    z = unit(x)
    return z.std(dim=0).mean() * math.sqrt(z.shape[1])


def mean_cosine(x: Tensor) -> Tensor:
    """Mean cosine of all pairs of different images; 1: all point the same way."""
    z = unit(x)
    return (z.sum(dim=0).square().sum() - len(z)) / (len(z) * (len(z) - 1))


def alignment(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distance of an image's two views, features of length 1 (Wang & Isola 2020, α = 2); 0: the same."""
    return (unit(a) - unit(b)).square().sum(dim=1).mean()


def uniformity(x: Tensor) -> Tensor:
    """ln of the mean of exp(-2 d²) over pairs of different images, features of length 1 (Wang & Isola 2020, t = 2).

    0: all features are the same; about -4 + 8/D: spread evenly over the sphere. There the cosine s of two has
    E[s] = 0 and E[s²] = 1/D, so that E[exp(-4 + 4s)] is about exp(-4) (1 + 8/D).
    """
    return torch.pdist(unit(x)).square().mul(-2).exp().mean().log()


def consistency(a: Tensor, b: Tensor, k: int = 10) -> Tensor:
    """Share of an image's k nearest others (cosine) in one view that are so in the other too, beyond chance, percent.

    100: the same neighbours; 0: as by chance, for k of n - 1 others. k is at most half of them.
    """
    others = len(a) - 1
    k = max(1, min(k, others // 2))
    near = [neighbours(x, k) for x in (a, b)]
    shared = (near[0] & near[1]).sum() / (len(a) * k)
    chance = k / others
    return 100 * (shared - chance) / (1 - chance)


def neighbours(x: Tensor, k: int) -> Tensor:
    """(n, n) of bool: whether column j is one of the k others that are nearest to row i by cosine."""
    z = unit(x)
    similarity = (z @ z.T).fill_diagonal_(-2)
    return torch.zeros_like(similarity, dtype=torch.bool).scatter_(1, similarity.topk(k, dim=1).indices, True)


def unit(x: Tensor) -> Tensor:
    """Rows of length 1."""
    return F.normalize(at_least_fp32(x), dim=1)
