"""Drift: the distance is that of the kernel, and the alarm knows noise from change."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.worker import drift
from serving.worker.drift import Sketch, Window, sketch

D = 16
GENERATOR = np.random.default_rng(1)
MIX = GENERATOR.normal(size=(D, D))


def images(n: int, seed: int, shift: float = 0.0, spread: float = 1.0, classes: int = 3) -> NDArray[np.float32]:
    """Embeddings in three clusters, correlated."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(3, D)) * 3
    points = centres[generator.integers(0, classes, n)] + spread * generator.normal(size=(n, D)) + shift
    return np.asarray(points @ MIX, np.float32)


@pytest.fixture(scope="module")
def of() -> Sketch:
    return sketch(images(3000, 2), images(400, 3))


def test_the_distance_is_the_kernels_maximum_mean_discrepancy(of: Sketch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "FREQUENCIES", 5_000)
    train, window = images(300, 4), images(200, 5, shift=1.0)
    fine = sketch(train, images(200, 6))
    width = 1 / fine.frequencies.std()

    def kernel(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        x, y = ((e - fine.mean) / fine.scale for e in (a, b))
        squares = np.square(x[:, None] - y[None]).sum(axis=2)
        return float(np.exp(-squares / (2 * width**2)).mean())

    exact = kernel(train, train) - 2 * kernel(train, window) + kernel(window, window)
    assert fine.distance(fine.features(window).mean(axis=0)) == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("seed", range(10, 20))
def test_windows_of_fresh_images_raise_no_alarm(of: Sketch, seed: int) -> None:
    window = Window(of)
    window.add(images(of.window, seed))
    assert window.distance is not None
    assert window.distance < of.limit


@pytest.mark.parametrize("change", [{"shift": 1.0}, {"shift": -1.0}, {"spread": 3.0}, {"classes": 1}])
def test_changed_images_raise_it(of: Sketch, change: dict[str, Any]) -> None:
    window = Window(of)
    window.add(images(of.window, 30, **change))
    assert window.distance is not None
    assert window.distance > of.limit


def test_the_window_slides_and_says_nothing_until_it_is_full(of: Sketch) -> None:
    stream = images(of.window + 77, 40)
    window = Window(of)
    for i in range(0, len(stream), 13):
        assert (window.distance is None) == (i < of.window)
        window.add(stream[i : i + 13])
    assert window.distance == pytest.approx(of.distance(of.features(stream[-of.window :]).mean(axis=0)), rel=1e-4)


def test_more_than_a_window_at_once_is_its_end(of: Sketch) -> None:
    stream = images(3 * of.window, 41)
    window = Window(of)
    window.add(stream)
    assert window.distance == pytest.approx(of.distance(of.features(stream[-of.window :]).mean(axis=0)), rel=1e-4)


def test_a_sketch_comes_back_from_its_file_and_holds_no_embedding(of: Sketch, tmp_path: Path) -> None:
    of.save(tmp_path / "drift.npz")
    again = Sketch.load(tmp_path / "drift.npz")
    for name in ("mean", "scale", "frequencies", "phases", "reference", "window", "limit"):
        np.testing.assert_array_equal(getattr(again, name), getattr(of, name))
    assert (tmp_path / "drift.npz").stat().st_size < 4 * (D + 3) * drift.FREQUENCIES + 4096
