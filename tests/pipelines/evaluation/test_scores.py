"""The file of scores, and the figures that are made of it."""

from pathlib import Path

import pytest

from pipelines.evaluation.scores import Score, figures, read, write

SCORES = [
    Score("simclr", "linear", "5", seed, sample, 90.0 + seed + sample, 80.0) for seed in range(2) for sample in range(3)
] + [Score("simclr", "knn", "all", 0, 0, 97.125, 96.5)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "new" / "scores.csv", SCORES)
    assert read(tmp_path / "new" / "scores.csv") == SCORES


def test_figures_are_means_and_sds_over_seeds_and_label_samples() -> None:
    f = figures(SCORES)
    assert f["linear_5"] == pytest.approx(91.5)
    assert f["linear_5_sd"] == pytest.approx((2 * (1.5**2 + 0.5**2 + 0.5**2) / 5) ** 0.5)  # 90 91 92 91 92 93
    assert (f["val_linear_5"], f["val_linear_5_sd"]) == (80.0, 0.0)
    assert f["knn_all"] == 97.125
    assert "knn_all_sd" not in f
