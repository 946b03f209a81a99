"""Pictures against what they must show."""

import numpy as np
import pytest
import torch

from models.encoders.vit import ViT, ViTParams
from models.methods.mae import MAE, MAEParams
from models.optim import OptimParams
from pipelines.engine.prefetch import generator
from pipelines.reporting import charts, pictures


@pytest.fixture(scope="module")
def mae() -> MAE:
    """Untrained, 16 patches of 4 × 4 px."""
    torch.manual_seed(0)
    encoder = ViT(ViTParams("vit_nano", 4), 16, (0.2, 0.4, 0.6), (0.1, 0.2, 0.3))
    params = MAEParams(encoder=ViTParams("vit_nano", 4), epochs=1, batch_size=4, optim=OptimParams("adamw", 0.1, 0.0))
    return MAE(encoder, params, 16)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_mosaic_has_each_tile_in_its_place() -> None:
    red, blue = torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)
    red[0], blue[2] = 1, 1
    picture = pictures.mosaic([[red, blue], [None, red]])
    assert picture.shape == (17, 17, 4)
    assert picture[3, 3].tolist() == [255, 0, 0, 255]
    assert picture[3, 12].tolist() == [0, 0, 255, 255]
    assert picture[12, 3, 3] == picture[8, 8, 3] == 0  # no tile, and the gap
    assert pictures.mosaic([[torch.zeros(3, 500, 500)]]).shape == (pictures.TILE, pictures.TILE, 4)


def test_neighbours_are_the_nearest_by_cosine() -> None:
    rng = np.random.default_rng(0)
    queries, bank = rng.normal(size=(4, 5)).astype(np.float32), rng.normal(size=(30, 5)).astype(np.float32)
    for query, found in zip(queries, pictures.neighbours(queries, bank, 6), strict=True):
        cosines = [query @ other / np.linalg.norm(query) / np.linalg.norm(other) for other in bank]
        assert found.tolist() == sorted(range(30), key=lambda i: -cosines[i])[:6]


def test_pixels_undo_the_patches(mae: MAE, images: torch.Tensor) -> None:
    _, target, _ = mae.reconstruct(images, torch.rand(3, 16))
    torch.testing.assert_close(pictures.pixels(mae, target), images / 255, atol=1e-6, rtol=0)


def test_what_is_not_hidden_is_shown_as_it_was(mae: MAE, images: torch.Tensor) -> None:
    trained = mae.params
    found = pictures.reconstructions(mae, images, generator(0, 0))
    assert mae.params == trained
    for ratio, (masked, filled) in found.items():
        for image, hidden, whole in zip(images / 255, masked, filled, strict=True):
            grey = (hidden == 0.5).all(dim=0)
            assert grey.sum() == 16 * (16 - int(16 * (1 - ratio)))
            torch.testing.assert_close(whole[:, ~grey], image[:, ~grey], atol=1e-6, rtol=0)
            torch.testing.assert_close(hidden[:, ~grey], image[:, ~grey])
            assert not torch.allclose(whole[:, grey], image[:, grey], atol=0.05)


def test_a_predicted_patch_has_the_mean_and_deviation_of_its_own(mae: MAE, images: torch.Tensor) -> None:
    """A decoder that predicts the normalised patch exactly reconstructs the image exactly."""
    flat = MAE(mae.encoder, mae.params, 16)
    _, target, _ = mae.reconstruct(images, torch.rand(3, 16))
    exact = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6).sqrt()
    flat.decode = lambda latent, order: exact  # type: ignore[method-assign]
    for _, filled in pictures.reconstructions(flat, images, generator(0, 0)).values():
        torch.testing.assert_close(torch.stack(filled), images / 255, atol=1e-5, rtol=0)


def test_each_head_has_its_attention_above_its_mask(mae: MAE, images: torch.Tensor) -> None:
    rows = pictures.attended(mae.encoder, images)
    assert [len(row) for row in rows] == [3] * 6  # the image and two heads; three images
    assert [row[0] is None for row in rows] == [False, True] * 3


@pytest.mark.parametrize("n", [5, 40])
def test_a_map_can_be_drawn_of_few_images_and_of_a_collapsed_encoder(n: int) -> None:
    labels = np.arange(n) % 2
    for features in (np.random.default_rng(0).normal(size=(n, 3)), np.ones((n, 3)), np.zeros((n, 3))):
        figure = charts.embedding_map(features.astype(np.float32), labels, ["a", "b"], "mae")
        shown = np.concatenate([line.get_xydata() for line in figure.axes[0].lines])
        assert shown.shape == (n, 2)
        assert np.isfinite(shown).all()
