"""Multinomial logistic regression to convergence, with scikit-learn's objective and much faster."""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_softmax
from threadpoolctl import ThreadpoolController

Array = NDArray[np.float32]
Labels = NDArray[np.int64]
STEPS = 1000  # at most; it takes 10 to 60


class LogisticRegression:
    """min over W, b of C Σ cross-entropy(x W + b, y) + ½ ‖W‖², the intercept b free; x: (n, D), y: (n,).

    Of two classes scikit-learn learns one vector w, the difference of ours: ‖w‖² = 2 ‖W‖². So C is halved for them.

    L-BFGS runs on V, where W = L⁻ᵀ V and L Lᵀ = C XᵀX / K + I is about the Hessian: so the features' condition, which
    costs L-BFGS on W hundreds of steps where C is large, no longer matters.
    """

    def __init__(self, x: Array, y: Labels) -> None:
        self.classes, places = np.unique(y, return_inverse=True)
        self._mean = x.mean(axis=0)
        self._x, self._y = torch.from_numpy(x - self._mean), torch.from_numpy(places)[:, None]
        self._gram = (self._x.T @ self._x).double().numpy()
        self.weight = np.zeros((x.shape[1], len(self.classes)))  # W
        self.bias = np.zeros(len(self.classes))  # b, of x less its mean

    def fit(self, C: float, tolerance: float = 1e-7) -> "LogisticRegression":
        """Fit, starting from the previous fit: on a path of ascending C, each solution is a few steps from the last.

        It ends when a step improves the objective by less than `tolerance`, a share of it.
        """
        (D, K), n = self.weight.shape, len(self._y)
        C = C / 2 if K == 2 else C
        hessian = C / K * self._gram
        hessian.flat[:: D + 1] += 1 + 1e-6 * hessian.trace() / D  # x is of single precision
        factor = cholesky(hessian, lower=True, overwrite_a=True, check_finite=False)
        inverse = torch.from_numpy(solve_triangular(factor, np.eye(D), lower=True, check_finite=False))  # L⁻¹
        scale = (K / (C * n)) ** 0.5  # of b, for the same reason
        minus_one = -torch.ones_like(self._y, dtype=self._x.dtype)

        def objective(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            W, b = inverse.T @ torch.from_numpy(v[: D * K]).view(D, K), scale * torch.from_numpy(v[D * K :])
            log_p = F.log_softmax(torch.addmm(b.to(self._x), self._x, W.to(self._x)), dim=1)
            loss = C * F.nll_loss(log_p, self._y[:, 0], reduction="sum").item() + W.square().sum().item() / 2
            residual = log_p.exp_().scatter_add_(1, self._y, minus_one)
            dV = inverse @ (C * (self._x.T @ residual).double() + W)
            return loss, torch.cat([dV.flatten(), C * scale * residual.sum(dim=0).double()]).numpy()

        start = np.concatenate([(factor.T @ self.weight).ravel(), self.bias / scale])
        options = {"maxiter": STEPS, "maxcor": 10, "ftol": tolerance, "gtol": 1e-3}
        with scipys_threads().limit(limits=1):
            found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
        self.weight, self.bias = inverse.numpy().T @ found[: D * K].reshape(D, K), scale * found[D * K :]
        return self

    def logits(self, x: Array) -> Array:
        """(m, K) of x (m, D)."""
        return np.asarray((x - self._mean) @ self.weight.astype(x.dtype) + self.bias.astype(x.dtype))

    def predict(self, x: Array) -> Labels:
        """(m,) classes of x (m, D)."""
        return np.asarray(self.classes[self.logits(x).argmax(axis=1)])

    def cross_entropy(self, x: Array, y: Labels) -> float:
        """Summed over samples x (m, D) of known classes y (m,), in nats."""
        log_p = log_softmax(self.logits(x), axis=1)
        return -float(log_p[np.arange(len(y)), np.searchsorted(self.classes, y)].sum())


@cache
def scipys_threads() -> ThreadpoolController:
    """SciPy's threads of algebra. They and torch's wait actively for each other, which takes 30 times as long."""
    return ThreadpoolController().select(internal_api="openblas")
