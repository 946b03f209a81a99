"""The probe's figures against the same ones computed by the long way round."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from data.shards import Prepared
from pipelines.config import ProbeParams
from pipelines.probe import SPLITS, agreement, evaluate, images, pixel_features
from tests.pipelines.conftest import prepare_small, write_digits
from tests.pipelines.project import Project

PARAMS = ProbeParams(shots=(1, 5), draws=3, neighbours=4)
Features = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def prepared(prepared_project: Project) -> Prepared:
    return Prepared(prepared_project.root / "data" / "prepared")


@pytest.fixture(scope="module")
def features(prepared: Prepared) -> Features:
    """Raw pixels of the three splits."""
    return {split: pixel_features(images(prepared, split)) for split in SPLITS}


def labels(prepared: Prepared, split: str) -> NDArray[np.int64]:
    return prepared.labels(prepared.rows(split))


def test_few_label_figures_are_those_of_a_plain_logistic_regression(prepared: Prepared, features: Features) -> None:
    metrics = evaluate(features, prepared, PARAMS, seed=0)
    scaler = StandardScaler().fit(features["train"])
    length = np.linalg.norm(scaler.transform(features["train"]), axis=1).mean()
    x = {split: scaler.transform(features[split]) / length for split in SPLITS}
    y = labels(prepared, "train")
    for shots in PARAMS.shots:
        scores = []
        for draw in range(PARAMS.draws):
            rng = np.random.default_rng([0, shots, draw])
            chosen = [row for c in range(10) for row in rng.permutation(np.flatnonzero(y == c))[:shots]]
            model = LogisticRegression(C=PARAMS.C, max_iter=1000).fit(x["train"][chosen], y[chosen])
            scores.append(100 * model.score(x["test"], labels(prepared, "test")))
        one_image = 100 / len(x["test"])
        assert metrics[f"linear_{shots}"] == pytest.approx(np.mean(scores), abs=one_image)
        assert metrics[f"linear_{shots}_sd"] == pytest.approx(np.std(scores, ddof=1), abs=one_image)


def test_knn_is_the_vote_of_the_nearest_by_cosine(prepared: Prepared, features: Features) -> None:
    x, y = features["train"], labels(prepared, "train")
    right = 0
    for query, truth in zip(features["test"], labels(prepared, "test"), strict=True):
        similarity = [float(query @ row / np.linalg.norm(query) / np.linalg.norm(row)) for row in x]
        votes = np.zeros(10)
        for row in sorted(range(len(x)), key=lambda row: -similarity[row])[: PARAMS.neighbours]:
            votes[y[row]] += np.exp(similarity[row] / PARAMS.temperature)
        right += votes.argmax() == truth
    metrics = evaluate(features, prepared, PARAMS, seed=0)
    assert metrics["knn"] == pytest.approx(100 * right / len(features["test"]))


def test_features_that_are_the_labels_are_read_perfectly(prepared: Prepared, features: Features) -> None:
    hot = {split: np.eye(10, dtype=np.float32)[labels(prepared, split)] for split in SPLITS}
    metrics = evaluate(hot, prepared, PARAMS, seed=0)
    assert {value for name, value in metrics.items() if not name.endswith("_sd")} == {100.0}
    rng = np.random.default_rng(0)
    noise = {split: rng.normal(size=x.shape).astype(np.float32) for split, x in hot.items()}
    assert evaluate(noise, prepared, PARAMS, seed=0)["linear_all"] < 35  # chance is 10


def test_without_labels_only_retrieval_is_measured(tmp_path: Path, features: Features) -> None:
    write_digits(tmp_path / "raw", 60, labelled=False)
    prepare_small(tmp_path / "raw", tmp_path / "out")
    flat = Prepared(tmp_path / "out")
    pixels = {split: pixel_features(images(flat, split)) for split in SPLITS}
    assert evaluate(pixels, flat, PARAMS, seed=0) == {}
    found = agreement(pixel_features, flat, seed=0)
    assert found.keys() == {"retrieval", "val_retrieval"}
    assert found == agreement(pixel_features, flat, seed=0)
    shutil.rmtree(tmp_path / "raw")
