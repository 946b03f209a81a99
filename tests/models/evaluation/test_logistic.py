"""Our logistic regression against scikit-learn's, on the digits' pixels."""

import numpy as np
import pytest
import sklearn.linear_model
from sklearn.metrics import log_loss

from models.evaluation.logistic import LogisticRegression
from models.evaluation.probe import Array, Labels, standardize
from tests.models.conftest import digits


def halves(n: int = 1200) -> tuple[Array, Labels, Array, Labels]:
    x, y = digits()
    train, test = standardize(x[:1200], x[1200:])
    return train[:n], y[:n], test, y[1200:]


@pytest.mark.parametrize(("n", "C"), [(1200, 0.1), (1200, 10.0), (1200, 1000.0), (80, 10.0)])
def test_it_finds_the_minimum_that_scikit_learn_finds(n: int, C: float) -> None:
    x, y, queries, truth = halves(n)
    ours = LogisticRegression(x, y).fit(C)
    theirs = sklearn.linear_model.LogisticRegression(C=C, solver="newton-cholesky", tol=1e-8).fit(x.astype(float), y)
    mine, other = (w - w.mean(axis=1, keepdims=True) for w in (ours.weight, theirs.coef_.T))
    np.testing.assert_allclose(mine, other, atol=2e-3 * np.abs(other).max())
    assert abs(100 * np.mean(ours.predict(queries) == truth) - 100 * theirs.score(queries, truth)) < 0.2
    loss = log_loss(truth, theirs.predict_proba(queries), normalize=False)
    assert ours.cross_entropy(queries, truth) == pytest.approx(loss, rel=2e-3)


@pytest.mark.parametrize("C", [0.1, 10.0, 1000.0])
def test_of_two_classes_it_is_scikit_learns_at_the_same_c(C: float) -> None:
    x, y, queries, truth = halves()
    two, asked = (y == 3) | (y == 8), (truth == 3) | (truth == 8)
    ours = LogisticRegression(x[two], y[two]).fit(C)
    theirs = sklearn.linear_model.LogisticRegression(C=C, solver="newton-cholesky", tol=1e-8)
    theirs.fit(x[two].astype(float), y[two])
    w = ours.weight[:, 1] - ours.weight[:, 0]
    np.testing.assert_allclose(w, theirs.coef_[0], atol=5e-3 * np.abs(theirs.coef_).max())
    loss = log_loss(truth[asked], theirs.predict_proba(queries[asked]), normalize=False)
    assert ours.cross_entropy(queries[asked], truth[asked]) == pytest.approx(loss, rel=5e-3)


def test_a_path_ends_where_a_fresh_fit_does() -> None:
    x, y, queries, _ = halves()
    path = LogisticRegression(x, y)
    for C in (0.1, 1.0, 10.0):
        path.fit(C)
    fresh = LogisticRegression(x, y).fit(10.0)
    np.testing.assert_allclose(path.logits(queries), fresh.logits(queries), atol=0.02)


def test_classes_may_have_any_numbers_and_features_be_dead() -> None:
    x, y, queries, truth = halves()
    x[:, 3] = 7.0
    model = LogisticRegression(x, 2 * y + 5).fit(10.0)
    assert set(model.predict(queries).tolist()) == set((2 * truth + 5).tolist())
