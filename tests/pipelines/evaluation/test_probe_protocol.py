"""The protocol's figures against the same ones computed by the long way round, with scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from data.shards import Prepared
from pipelines.evaluation import probe_protocol, scores
from pipelines.evaluation.features import images, pixel_features
from pipelines.project.config import ProbeParams
from tests.pipelines.conftest import prepare_small, write_digits
from tests.pipelines.small_project import Project

PARAMS = ProbeParams(label_samples=3, neighbours=4)
Arrays = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def prepared(prepared_project: Project) -> Prepared:
    return Prepared(prepared_project.root / "data" / "prepared")


@pytest.fixture(scope="module")
def features(prepared: Prepared) -> Arrays:
    """Raw pixels of the three splits."""
    return {split: pixel_features(images(prepared, split)) for split in probe_protocol.SPLITS}


def read(features: Arrays, y: dict[str, NDArray[np.int64]], shots: list[int]) -> list[probe_protocol.Reading]:
    return list(probe_protocol.readings(features, y, shots, PARAMS, seed=0))


def test_every_accuracy_is_scikit_learns(prepared: Prepared, features: Arrays) -> None:
    y = probe_protocol.labels(prepared)
    scaler = StandardScaler().fit(features["train"])
    length = np.linalg.norm(scaler.transform(features["train"]), axis=1).mean()
    x = {split: scaler.transform(features[split]) / length for split in probe_protocol.SPLITS}
    found = read(features, y, [1, 5])
    assert len(found) == 2 * (2 * PARAMS.label_samples + 1)
    for r in found:
        rows = np.arange(len(y["train"]))
        if r.labels != "all":
            rng = np.random.default_rng([0, int(r.labels), r.sample])
            rows = np.concatenate(
                [rng.permutation(np.flatnonzero(y["train"] == c))[: int(r.labels)] for c in range(10)]
            )
        if r.how == "linear":
            model, space = LogisticRegression(C=r.C, tol=1e-7, max_iter=5000), x
        else:
            k = 4 if r.labels == "all" else min(4, int(r.labels))
            weights = lambda distance: np.exp((1 - distance) / PARAMS.temperature)  # noqa: E731
            model, space = KNeighborsClassifier(k, metric="cosine", weights=weights), features
        model.fit(space["train"][rows], y["train"][rows])
        ours = probe_protocol.score(r, y, "pixels", seed=0)
        for split, accuracy in (("test", ours.accuracy), ("val", ours.val)):
            assert accuracy == pytest.approx(100 * model.score(space[split], y[split]), abs=0.2), r


def test_features_that_are_the_labels_are_read_perfectly(prepared: Prepared, features: Arrays) -> None:
    y = probe_protocol.labels(prepared)
    hot = {split: np.eye(10, dtype=np.float32)[y[split]] for split in probe_protocol.SPLITS}
    assert {probe_protocol.score(r, y, "hot", 0).accuracy for r in read(hot, y, [1])} == {100.0}
    rng = np.random.default_rng(0)
    noise = {split: rng.normal(size=x.shape).astype(np.float32) for split, x in hot.items()}
    measured = scores.figures(probe_protocol.score(r, y, "noise", 0) for r in read(noise, y, []))
    assert measured["linear_all"] < 35  # chance is 10


def test_unlabelled_images_are_told_but_not_counted(prepared: Prepared, features: Arrays) -> None:
    y = probe_protocol.labels(prepared)
    mixed = {split: np.where(np.arange(len(of)) % 2, of, -1) for split, of in y.items()}
    halves = {split: of[1::2] for split, of in y.items()}
    (_, whole), (_, half) = read(features, mixed, []), read({s: x[1::2] for s, x in features.items()}, halves, [])
    assert len(whole.predictions["test"]) == len(y["test"])
    assert np.array_equal(whole.predictions["test"][1::2], half.predictions["test"])
    assert probe_protocol.score(whole, mixed, "a", 0) == probe_protocol.score(half, halves, "a", 0)


def test_without_labels_there_is_nothing_to_read(tmp_path: Path) -> None:
    write_digits(tmp_path / "raw", 60, labelled=False)
    prepare_small(tmp_path / "raw", tmp_path / "out")
    assert probe_protocol.labels(Prepared(tmp_path / "out")) == {}
