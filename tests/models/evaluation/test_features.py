"""Features: how they are extracted, calibrated and scaled, and what is measured of them without labels."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from models.evaluation.probe import (
    between_images,
    calibrate,
    extract,
    retrieval,
    scaling,
    standardize,
)  # fmt: skip
from tests.models.conftest import RESNET, VIT, noise_images, small


def test_retrieval_closed_forms() -> None:
    x = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    assert retrieval(x, 3 * x) == 1
    assert retrieval(x, np.roll(x, 1, axis=0)) == 0
    mixed = x.copy()
    mixed[:5] = np.roll(x[:5], 1, axis=0)
    assert retrieval(x, mixed) == pytest.approx(0.75)
    collapsed = np.ones((20, 8), np.float32)
    assert retrieval(collapsed, collapsed) == pytest.approx(1 / 20)  # chance


def test_variance_between_images_closed_forms() -> None:
    rng = np.random.default_rng(0)
    image, noise = rng.standard_normal((1, 4000, 6)), rng.standard_normal((4, 4000, 6))
    share = np.array([0.0, 0.1, 0.3, 0.5, 0.9, 1.0])  # of each direction's variance that is the image's own
    x = np.sqrt(share) * image + np.sqrt(1 - share) * noise
    expected = (share + (1 - share) / 4).mean()  # a quarter of the noise is left in the mean of four views
    assert between_images(x.astype(np.float32)) == pytest.approx(expected, abs=0.01)
    mixed = x @ rng.standard_normal((6, 6)) * np.array([1e-3, 1, 1, 1, 1, 1e3]) + 5
    assert between_images(mixed.astype(np.float32)) == pytest.approx(between_images(x.astype(np.float32)), abs=2e-3)
    dead = np.concatenate([x, np.ones_like(x)], axis=2)
    assert between_images(dead.astype(np.float32)) == pytest.approx(expected / 2, abs=0.005)
    assert between_images(np.ones((4, 9, 3), np.float32)) == 0


def test_variance_between_images_is_the_loops(generator: Generator) -> None:
    views = torch.randn(3, 20, 2, generator=generator).numpy() + np.arange(20)[:, None].astype(np.float32)
    means, whole = views.mean(axis=0), views.mean(axis=(0, 1))
    between, total = np.zeros((2, 2)), np.zeros((2, 2))
    for i in range(20):
        between += np.outer(means[i] - whole, means[i] - whole) / 20
        for v in range(3):
            total += np.outer(views[v, i] - whole, views[v, i] - whole) / 60
    share = np.linalg.eigvals(np.linalg.inv(total) @ between).mean()
    assert between_images(views) == pytest.approx(share, abs=2e-3)


def test_standardised_by_the_train_images_alone() -> None:
    rng = np.random.default_rng(0)
    train, test = (rng.standard_normal((n, 5)).astype(np.float32) * [1, 2, 3, 4, 100] + 7 for n in (200, 50))
    train[:, 4] = 1.0  # a dead feature
    ours, other = standardize(train.astype(np.float32), test.astype(np.float32))
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(ours[:, :4].std(axis=0), ours[:, 0].std(), rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1).mean(), 1, rtol=1e-5)
    gain = ours[:, 0].std() / train[:, 0].std()
    np.testing.assert_allclose(other[:, 0], (test[:, 0] - train[:, 0].mean()) * gain, rtol=1e-5, atol=1e-5)


def test_calibration_is_the_statistics_of_the_images() -> None:
    encoder = small(RESNET)
    weights = {name: p.clone() for name, p in encoder.named_parameters()}
    images = noise_images(32, 16) // torch.arange(1, 33, dtype=torch.uint8).view(-1, 1, 1, 1)  # the later the darker
    calibrate(encoder, (images[i : i + 8] for i in range(0, 32, 8)))
    norm = encoder.get_submodule("bn1")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        x = encoder.get_submodule("conv1")(encoder.normalize(images)).transpose(0, 1).flatten(1)  # (C, 32 · 8 · 8)
    assert isinstance(norm.running_mean, Tensor)
    torch.testing.assert_close(norm.running_mean, x.mean(dim=1))
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_var, torch.stack([c.var(dim=1) for c in x.chunk(4, dim=1)]).mean(dim=0))
    assert all(torch.equal(p, weights[name]) for name, p in encoder.named_parameters())


def test_calibrated_in_one_batch_evaluates_as_it_trains() -> None:
    encoder, images = small(RESNET, 32), noise_images(64, 32)
    calibrate(encoder, [images])
    with torch.no_grad():
        trained = encoder.train()(images).clone()
    calibrate(encoder, [images])
    ours = extract(encoder, [images], torch.device("cpu"))
    np.testing.assert_allclose(ours, trained.numpy(), rtol=0.05, atol=0.02)  # variances divide by n − 1, not n


def test_calibration_leaves_a_network_without_batch_norm_alone() -> None:
    encoder = small(VIT).eval()
    calibrate(encoder, [noise_images(2, 16)])
    assert not encoder.training


def test_features_are_extracted_in_eval_mode() -> None:
    encoder, images = small(RESNET), noise_images(7, 16)

    def batches() -> Iterator[Tensor]:
        yield from (images[i : i + 3] for i in range(0, 7, 3))

    features = extract(encoder, batches(), torch.device("cpu"))
    assert features.shape == (7, encoder.dim)
    assert features.dtype == np.float32
    alone = [extract(encoder, [image[None]], torch.device("cpu")) for image in images]
    np.testing.assert_allclose(features, np.concatenate(alone), rtol=1e-5, atol=1e-6)


def test_features_are_extracted_in_tf32_and_the_flags_are_given_back() -> None:
    flags = torch.backends.cudnn, torch.backends.cuda.matmul
    before, during = [flag.allow_tf32 for flag in flags], []
    network = torch.nn.Flatten()
    network.register_forward_hook(lambda *_: during.append([flag.allow_tf32 for flag in flags]))
    found = extract(network, [torch.ones(2, 3, 2, 2, dtype=torch.uint8)] * 2, torch.device("cpu"))
    assert found.shape == (4, 12)
    assert during == [[True, True]] * 2
    assert [flag.allow_tf32 for flag in flags] == before


def test_scaling_takes_no_more_memory_than_one_copy() -> None:
    x = np.random.default_rng(0).standard_normal((20_000, 64)).astype(np.float32)
    scaled = scaling(x)
    tracemalloc.start()
    y = scaled(x)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert y.dtype == np.float32
    assert most < 1.1 * x.nbytes
