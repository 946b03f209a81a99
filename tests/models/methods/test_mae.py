"""The reconstruction loss against a loop, and that what is masked stays hidden."""

import math
from statistics import fmean, variance

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.encoders.vit import ViT, ViTParams
from models.methods.mae import MAE, MAEParams, patchify, per_patch, reconstruction, take
from tests.models.conftest import OPTIM, RESNET, VIT, noise_images, small, views_of


def mae(encoder: ViTParams = VIT, image_size: int = 16, mask_ratio: float = 0.75, dim: int = 32) -> MAE:
    params = MAEParams(encoder, 1, 4, OPTIM, mask_ratio=mask_ratio, decoder_dim=dim, decoder_depth=1, decoder_heads=2)
    return MAE(small(encoder, image_size), params, image_size)


def batch(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction and target (3, 5, 12), masked (3, 5) with 3 masked patches an image."""
    prediction, target = torch.randn(2, 3, 5, 12, generator=generator, dtype=torch.float64)
    order = torch.rand(3, 5, generator=generator).argsort(dim=1)
    return prediction, target, (order < 3).double()


@pytest.mark.parametrize("norm_pix", [False, True])
def test_reconstruction_is_the_loop(norm_pix: bool, generator: Generator) -> None:
    prediction, target, masked = batch(generator)
    errors = []
    for image in range(3):
        for patch in range(5):
            if not masked[image, patch]:
                continue
            pixels: list[float] = target[image, patch].tolist()
            mean, sd = (fmean(pixels), math.sqrt(variance(pixels) + 1e-6)) if norm_pix else (0.0, 1.0)
            guesses: list[float] = prediction[image, patch].tolist()
            errors.append(fmean((g - (p - mean) / sd) ** 2 for g, p in zip(guesses, pixels, strict=True)))
    loss = reconstruction(prediction, target, masked, norm_pix)
    assert loss.item() == pytest.approx(fmean(errors), rel=1e-12)


@pytest.mark.parametrize("norm_pix", [False, True])
def test_visible_patches_are_not_scored(norm_pix: bool, generator: Generator) -> None:
    prediction, target, masked = batch(generator)
    loss = reconstruction(prediction, target, masked, norm_pix)
    visible = masked[:, :, None] == 0
    assert reconstruction(prediction, target.masked_fill(visible, 7.0), masked, norm_pix) == loss
    assert reconstruction(prediction.masked_fill(visible, 7.0), target, masked, norm_pix) == loss
    assert reconstruction(prediction, target.masked_fill(~visible, 7.0), masked, norm_pix) != loss


def test_normalised_target_forgets_brightness_and_contrast_of_each_patch(generator: Generator) -> None:
    prediction, target, masked = batch(generator)
    gain, offset = torch.rand(2, 3, 5, 1, generator=generator, dtype=torch.float64) + 0.5
    loss = reconstruction(prediction, target, masked, norm_pix=True)
    torch.testing.assert_close(
        reconstruction(prediction, gain * target + offset, masked, norm_pix=True), loss, rtol=1e-5, atol=0
    )


def test_grey_guess_costs_the_variance(generator: Generator) -> None:
    _, target, masked = batch(generator)
    loss = reconstruction(torch.zeros_like(target), target, masked, norm_pix=True)
    assert loss.item() == pytest.approx(11 / 12, rel=1e-5)  # (n − 1)/n: the variance is the unbiased one


def test_patchify_is_the_loop() -> None:
    images = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    expected = [
        [
            [image[c, 2 * row + i, 2 * column + j] for i in range(2) for j in range(2) for c in range(3)]
            for row in range(2)
            for column in range(3)
        ]
        for image in images
    ]
    assert torch.equal(patchify(images, 2), torch.tensor(expected))


@pytest.mark.parametrize(("ratio", "patches", "visible"), [(0.75, 196, 49), (0.75, 16, 4), (0.5, 64, 32), (0.99, 4, 1)])
def test_mask_ratio_is_exact(ratio: float, patches: int, visible: int, generator: Generator) -> None:
    chosen, order = mae(mask_ratio=ratio).split(torch.rand(3, patches, generator=generator))
    assert chosen.shape == (3, visible)
    assert torch.equal(order.sort(dim=1).values, torch.arange(patches).expand(3, -1))


def test_masking_is_per_image_and_uniform(generator: Generator) -> None:
    method, n = mae(ViTParams("vit_nano", 2), 8), 4000
    x, noise = views_of(method, torch.zeros(n, 3, 8, 8, dtype=torch.uint8), generator)
    assert x.shape == (n, 3, 8, 8)
    visible, _ = method.split(noise)
    assert len({tuple(sorted(row)) for row in visible.tolist()}) > 1500  # of C(16, 4) = 1820
    counts = visible.flatten().bincount(minlength=16).double()
    # Each count has variance n/4 · 3/4; of 16 that sum to a constant, 15 are free: χ² below its 99.9 % point.
    chi_square = ((counts - n / 4) ** 2 / (n / 4 * 3 / 4)).sum() * 15 / 16
    assert chi_square < 37.7


def test_unshuffle_puts_each_token_at_its_patch(generator: Generator) -> None:
    method = mae(dim=64)  # of the encoder as well, so that the decoder can be the identity
    for name in ("decoder_embed", "decoder_norm", "decoder_pred"):
        method.add_module(name, nn.Identity())
    method.decoder_blocks = nn.ModuleList()
    nn.init.zeros_(method.decoder_pos_embed)
    visible, order = method.split(torch.rand(3, 16, generator=generator))
    latent = torch.randn(3, 1 + 4, 64, generator=generator)
    decoded = method.decode(latent, order)
    for image in range(3):
        expected = method.mask_token[0].expand(16, -1).clone()
        expected[visible[image]] = latent[image, 1:]
        assert torch.equal(decoded[image], expected)
    assert torch.equal(take(take(latent, torch.tensor([[2, 0, 1]] * 3)), torch.tensor([[1, 2, 0]] * 3)), latent[:, :3])


def test_masked_pixels_reach_the_target_only(generator: Generator) -> None:
    method = mae().eval()
    latents: list[Tensor] = []
    predictions: list[Tensor] = []
    method.encoder.norm.register_forward_hook(lambda _module, _args, out: latents.append(out))
    method.decoder_pred.register_forward_hook(lambda _module, _args, out: predictions.append(out))
    x, noise = views_of(method, noise_images(3, 16), generator)
    visible, _ = method.split(noise)
    masked = torch.ones(3, 16).scatter(1, visible, 0).view(3, 1, 4, 4)
    pixels = masked.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3).bool()
    first = method.loss([x, noise], 0.0)
    second = method.loss([torch.where(pixels, torch.rand(x.shape, generator=generator), x), noise], 0.0)
    method.loss([torch.where(pixels, x, torch.rand(x.shape, generator=generator)), noise], 0.0)
    assert latents[0].shape == (3, 1 + 4, 64)
    assert torch.equal(latents[0], latents[1])
    assert torch.equal(predictions[0], predictions[1])
    assert first != second
    assert not torch.allclose(latents[0], latents[2])


def test_encoder_sees_a_quarter_and_costs_a_quarter(generator: Generator) -> None:
    method = mae(image_size=32)
    tokens = method.encoder.embed(torch.rand(2, 3, 32, 32))
    visible, _ = method.split(torch.rand(2, 64, generator=generator))

    def flops(tokens: Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            method.encoder.encode(tokens)
        return int(counter.get_total_flops())

    assert 0.2 < flops(take(tokens, visible)) / flops(tokens) < 0.35


def test_patch_projection_starts_as_a_linear_layer_would() -> None:
    weight = mae(ViTParams("vit_micro", 4)).encoder.patch_embed.proj.weight
    bound = math.sqrt(6 / (3 * 4 * 4 + 96))  # Xavier, uniform
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_decoder_positions_are_fixed() -> None:
    method = mae()
    assert isinstance(method.encoder, ViT)
    assert "decoder_pos_embed" not in {name for name, p in method.named_parameters() if p.requires_grad}


def test_impossible_parameters_are_named() -> None:
    with pytest.raises(ValueError, match="mask_ratio is 1"):
        mae(mask_ratio=1.0)
    with pytest.raises(ValueError, match="decoder_dim is 30"):
        mae(dim=30)
    with pytest.raises(ValueError, match="vision transformer"):
        MAE(small(RESNET), MAEParams(VIT, 1, 4, OPTIM), 16)


@pytest.mark.parametrize("norm_pix", [False, True])
def test_the_mean_image_has_a_relative_loss_of_one(norm_pix: bool, generator: Generator) -> None:
    method = MAE(small(VIT), MAEParams(VIT, 1, 4, OPTIM, decoder_dim=16, decoder_depth=1, decoder_heads=1,
                                       norm_pix=norm_pix), 16).eval()  # fmt: skip
    views = views_of(method, noise_images(5, 16), generator)
    target = patchify(method.encoder.normalize(views[0]), 4)
    target = per_patch(target) if norm_pix else target
    method.decode = lambda latent, order: target.mean(0, keepdim=True).expand(5, -1, -1)  # type: ignore[method-assign]
    assert method.signals(views, 0.0)["relative_loss"].item() == pytest.approx(1, rel=1e-6)
    method.decode = lambda latent, order: target  # type: ignore[method-assign]
    assert method.signals(views, 0.0)["relative_loss"].item() == pytest.approx(0, abs=1e-6)
