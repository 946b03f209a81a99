"""The file of scores, the predictions beside it, and the figures that are made of them."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.evaluation.scores import JUDGED, Predictions, Score, answers, figures, read, write
from tests.pipelines.evaluation.answers import score

SCORES = [
    score("simclr", "linear", "5", seed, sample, 90.0 + seed + sample, 80.0) for seed in range(2) for sample in range(3)
] + [score("simclr", "knn", "all", 0, 0, 97.1, 96.5)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.csv"
    write(path, SCORES)
    found = read(path)
    assert found == SCORES
    for split in JUDGED:
        for before, after in zip(SCORES, found, strict=True):
            assert np.array_equal(before.said[split].predicted, after.said[split].predicted)
            assert np.array_equal(before.said[split].truth, after.said[split].truth)
    assert found[0].said["test"].predicted.dtype == np.uint8
    assert [s.accuracy for s in found] == pytest.approx([s.said["test"].accuracy for s in found])


def test_no_scores_are_a_table_too(tmp_path: Path) -> None:
    write(tmp_path / "scores.csv", [])
    assert read(tmp_path / "scores.csv") == []


def test_answers_are_averaged_over_the_label_samples_of_a_seed() -> None:
    truth = np.array([0, 1, 2])

    def read(seed: int, sample: int, *predicted: int) -> Score:
        said = Predictions(np.array(predicted), truth)
        return Score.of("mae", "linear", "1", seed, sample, {"test": said, "val": said})

    found = answers([read(1, 0, 0, 1, 2), read(0, 0, 0, 0, 0), read(0, 1, 0, 1, 0)])
    assert found.tolist() == [[1, 0.5, 0], [1, 1, 1]]
    assert read(0, 0, 0, 1, 0).accuracy == pytest.approx(200 / 3)


def test_figures_are_means_and_sds_over_seeds_and_label_samples() -> None:
    f = figures(SCORES)
    assert f["linear_5"] == pytest.approx(91.5)
    assert f["linear_5_sd"] == pytest.approx((2 * (1.5**2 + 0.5**2 + 0.5**2) / 5) ** 0.5)  # 90 91 92 91 92 93
    assert (f["val_linear_5"], f["val_linear_5_sd"]) == (80.0, 0.0)
    assert f["knn_all"] == 97.1
    assert "knn_all_sd" not in f
