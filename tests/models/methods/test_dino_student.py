"""DINO's student: its views and passes, its head, and its stochastic depth."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Generator, nn

from models.encoders.resnet import ResNetParams
from models.encoders.vit import ViTParams
from models.methods.dino import DINOParams, Head
from models.views.sizes import by_size
from tests.models.conftest import OPTIM, RESNET, VIT, noise_images, views_of
from tests.models.methods.tiny_dino import dino


def test_last_layer_is_frozen_at_first(generator: Generator) -> None:
    method = dino(freeze_last_layer=0.1, norm_last_layer=False)
    views, head = views_of(method, noise_images(4, 16), generator), method.student["head"]
    assert isinstance(head, Head)
    method.loss(views, 0.09).backward()  # type: ignore[no-untyped-call]
    method.before_step(0.09)
    assert head.direction.grad is None
    assert head.length.grad is None
    assert head.get_parameter("mlp.0.weight").grad is not None
    method.loss(views, 0.1).backward()  # type: ignore[no-untyped-call]
    method.before_step(0.1)
    assert head.direction.grad is not None
    assert head.length.grad is not None


@pytest.mark.parametrize("encoder", [VIT, RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("crops", [0, 3])
def test_two_global_views_and_the_local_ones(
    encoder: ResNetParams | ViTParams, crops: int, generator: Generator
) -> None:
    method = dino(encoder, local_crops=crops)
    views = views_of(method, noise_images(4, 20), generator)
    assert [v.shape for v in views] == [(4, 3, 16, 16)] * 2 + [(4, 3, 8, 8)] * crops
    assert all(not torch.equal(a, b) for a, b in pairwise(views))
    passes: list[int] = []
    method.student["encoder"].register_forward_hook(lambda _module, args, _out: passes.append(len(args[0])))
    assert method.loss(views, 0.0).isfinite()
    assert passes == [8, 4 * crops][: 1 + bool(crops)]  # one a size


def test_one_pass_a_size_is_a_pass_a_view(generator: Generator) -> None:
    method = dino().eval()
    views = views_of(method, noise_images(4, 16), generator)
    together = torch.cat(
        [method.student["head"](method.student["encoder"](x)) for (x,) in by_size([(v,) for v in views])]
    )
    apart = torch.cat([method.student["head"](method.student["encoder"](x)) for x in views])
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_last_layer_has_unit_rows_and_unit_inputs(batch_norm: bool, generator: Generator) -> None:
    params = DINOParams(VIT, 1, 4, OPTIM, head_hidden=16, head_bottleneck=8, head_dim=12, head_batch_norm=batch_norm)
    head = Head(64, params)
    assert sum(isinstance(m, nn.BatchNorm1d) for m in head.mlp) == 2 * batch_norm
    assert sum(isinstance(m, nn.Linear) for m in head.mlp) == 3
    assert not head.length.requires_grad
    assert head(100 * torch.randn(32, 64, generator=generator)).abs().max() <= 1  # cosines
    head.mlp = nn.Sequential()
    weight = head(5 * torch.eye(8)).T  # (12, 8)
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(12))
    with torch.no_grad():
        head.length.fill_(2.0)
    torch.testing.assert_close(head(torch.eye(8)).T, 2 * weight)


def test_the_last_layer_is_computed_in_fp32(generator: torch.Generator) -> None:
    head = Head(64, DINOParams(VIT, 1, 4, OPTIM, head_bottleneck=64, head_dim=512))
    head.mlp = nn.Sequential()
    z = torch.randn(8, 64, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(z)
    assert logits.dtype == torch.float32
    assert (logits - head(z)).abs().max() / 0.04 < 1e-4  # nats; bf16's products are 0.05 off


def test_views_are_those_of_the_paper() -> None:
    first, second, *local = DINOParams(VIT, 1, 4, OPTIM).views
    assert len(local) == 8
    assert (first.area, local[0].area) == ((0.4, 1.0), (0.05, 0.4))
    assert [view.blur for view in (first, second, local[0])] == [1.0, 0.1, 0.5]
    assert [view.solarize for view in (first, second, local[0])] == [0.0, 0.2, 0.0]
    assert first.strengths == (0.4, 0.4, 0.2, 0.1)


def test_stochastic_depth_is_the_students_and_drawn_a_view(generator: Generator) -> None:
    method = dino(drop_path=0.5, local_crops=2).eval()
    plain = dino(local_crops=2).eval()
    plain.load_state_dict(method.state_dict())
    views = views_of(method, noise_images(64, 16), generator)
    assert [tuple(v.shape) for v in views[4:]] == [(64, 4, 2)] * 4
    last = torch.cat(views[4:])[:, -1]  # of the last block, whose rate is the whole one
    assert set(last.flatten().tolist()) == {0.0, 2.0}
    assert (last == 0).float().mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / last.numel()))
    kept = [torch.ones_like(v) for v in views[4:]]
    torch.testing.assert_close(method.loss(views[:4] + kept, 0.0), plain.loss(views[:4], 0.0))
    assert method.loss(views, 0.0) != plain.loss(views[:4], 0.0)
    torch.testing.assert_close(method.teacher_means[0], plain.teacher_means[0])


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_stochastic_depth_is_named(rate: float) -> None:
    with pytest.raises(ValueError, match=f"drop_path is {rate}. Allowed"):
        dino(drop_path=rate)
    with pytest.raises(ValueError, match=r"drop_path is 0\.1\. Allowed"):
        dino(RESNET, drop_path=0.1)
