"""Weights that fit and weights that do not; normalisation travels with the encoder."""

import pytest
import torch

from models import CheckpointError
from models.encoders.normalize import Normalize
from models.encoders.resnet import ResNet, ResNetParams
from models.encoders.vit import ViT, ViTParams
from models.encoders.weights import load
from tests.models.conftest import MEAN, RESNET, STD, VIT, noise_images, small


@pytest.mark.parametrize(("params", "kind"), [(RESNET, ResNet), (VIT, ViT)])
def test_weights_make_the_encoder(params: ResNetParams | ViTParams, kind: type) -> None:
    source, target = small(params).eval(), params.build(16, (0.0,) * 3, (1.0,) * 3).eval()
    assert isinstance(target, kind)
    images = noise_images(3, 16)
    assert not torch.equal(source(images), target(images))
    load(target, source.state_dict())
    assert torch.equal(source(images), target(images))


def test_public_weights_have_no_normalisation_and_leave_ours() -> None:
    weights = {k: v + 1 for k, v in small(VIT).state_dict().items() if not k.startswith("normalize.")}
    encoder = small(VIT)
    load(encoder, weights)
    assert torch.equal(encoder.get_parameter("norm.weight"), weights["norm.weight"])
    assert encoder.get_buffer("normalize.mean").flatten().tolist() == pytest.approx(MEAN)


def test_what_does_not_fit_is_named_and_nothing_is_copied() -> None:
    encoder = small(VIT)
    weights = {k: v + 1 for k, v in encoder.state_dict().items()}
    before = encoder.get_parameter("norm.weight").clone()
    without = {k: v for k, v in weights.items() if k != "norm.bias"}
    with pytest.raises(CheckpointError, match=r"missing norm\.bias; unknown none\. "):
        load(encoder, without)
    with pytest.raises(CheckpointError, match=r"missing none; unknown head\.weight\. "):
        load(encoder, weights | {"head.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"pos_embed is \(1, 197, 64\) instead of \(1, 17, 64\)\. "):
        load(encoder, weights | {"pos_embed": torch.zeros(1, 197, 64)})
    assert torch.equal(encoder.get_parameter("norm.weight"), before)


@pytest.mark.parametrize("params", [RESNET, VIT], ids=["resnet", "vit"])
def test_bytes_and_floats_are_one_image(params: ResNetParams | ViTParams) -> None:
    encoder, images = small(params).eval(), noise_images(3, 16)
    assert torch.equal(encoder(images), encoder(images.float() / 255))


def test_normalised_is_zero_mean_and_unit_variance() -> None:
    normalize = Normalize(MEAN, STD)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1).expand(1, 3, 2, 2) for v in (MEAN, STD))
    torch.testing.assert_close(normalize(mean), torch.zeros(1, 3, 2, 2))
    torch.testing.assert_close(normalize(mean - 2 * std), torch.full((1, 3, 2, 2), -2.0))
    images = noise_images(64, 16)
    x = images.double() / 255
    normalize = Normalize(x.mean(dim=(0, 2, 3)).tolist(), x.std(dim=(0, 2, 3)).tolist())
    torch.testing.assert_close(normalize(images).mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(normalize(images).std(dim=(0, 2, 3)), torch.ones(3))
    assert set(normalize.state_dict()) == {"mean", "std"}


def test_images_of_one_colour_stay_finite() -> None:
    assert Normalize((0.5,) * 3, (0.0,) * 3)(noise_images(1, 4)).isfinite().all()
