"""ResNet: torchvision's names and shapes by their rule, published counts, and the wiring written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.encoders.resnet import ResNet, ResNetParams
from tests.models.conftest import MEAN, STD, noise_images, small

Shapes = dict[str, tuple[int, ...]]


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")} | {
        f"{name}.num_batches_tracked": ()
    }


def torchvision_shapes(depths: tuple[int, ...], bottleneck: bool) -> Shapes:
    """The state dict of torchvision's resnet18 or resnet50 without fc."""
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7)} | norm("bn1", 64)
    c_in = 64
    for stage, depth in enumerate(depths, 1):
        c = 32 * 2**stage
        convs = [(c, 1), (c, 3), (4 * c, 1)] if bottleneck else [(c, 3), (c, 3)]
        for block in range(depth):
            name, source = f"layer{stage}.{block}", c_in
            for i, (c_out, kernel) in enumerate(convs, 1):
                shapes |= {f"{name}.conv{i}.weight": (c_out, source, kernel, kernel)} | norm(f"{name}.bn{i}", c_out)
                source = c_out
            if block == 0 and c_in != source:
                shapes |= {f"{name}.downsample.0.weight": (source, c_in, 1, 1)} | norm(f"{name}.downsample.1", source)
            c_in = source
    return shapes


def on_meta(params: ResNetParams) -> ResNet:
    with torch.device("meta"):
        return ResNet(params, MEAN, STD)


@pytest.mark.parametrize(
    ("params", "depths", "bottleneck", "count"),
    [
        (ResNetParams("resnet18"), (2, 2, 2, 2), False, 11_176_512),
        (ResNetParams("resnet50"), (3, 4, 6, 3), True, 23_508_032),
    ],
)
def test_names_shapes_and_count_are_torchvisions(
    params: ResNetParams, depths: tuple[int, ...], bottleneck: bool, count: int
) -> None:
    encoder = on_meta(params)
    own = {k: tuple(v.shape) for k, v in encoder.state_dict().items() if not k.startswith("normalize.")}
    assert own == torchvision_shapes(depths, bottleneck)
    assert sum(p.numel() for p in encoder.parameters()) == count


@pytest.mark.parametrize(("arch", "dim"), [("resnet10", 512), ("resnet18", 512), ("resnet50", 2048)])
def test_features_are_as_wide_as_the_last_stage(arch: str, dim: int) -> None:
    assert on_meta(ResNetParams(arch)).dim == dim  # type: ignore[arg-type]
    assert on_meta(ResNetParams(arch, width=16)).dim == dim // 4  # type: ignore[arg-type]


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 1), ("small", 4), ("small/2", 2)])
def test_stems(stem: str, side: int) -> None:
    encoder = small(ResNetParams("resnet10", width=4, stem=stem)).eval()  # type: ignore[arg-type]
    maps: list[Tensor] = []
    encoder.get_submodule("layer4").register_forward_hook(lambda _module, _args, out: maps.append(out))
    features = encoder(noise_images(2, 32))
    assert maps[0].shape == (2, encoder.dim, side, side)
    torch.testing.assert_close(features, maps[0].mean(dim=(2, 3)))


@pytest.mark.parametrize(("arch", "depths"), [("resnet18", (2, 2, 2, 2)), ("resnet50", (3, 4, 6, 3))])
def test_wiring_is_that_of_torchvision(arch: str, depths: tuple[int, ...], generator: torch.Generator) -> None:
    encoder = small(ResNetParams(arch, width=4)).eval()  # type: ignore[arg-type]
    for key, value in encoder.state_dict().items():  # norms that do something
        if "running" in key or ".bn" in key:
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    w = encoder.state_dict()
    images = noise_images(2, 64)

    def bn(x: Tensor, name: str) -> Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, var, gain, offset = (w[f"{name}.{part}"][:, None, None] for part in parts)
        out: Tensor = (x - mean) / (var + 1e-5).sqrt() * gain + offset
        return out

    x = (images / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    x = F.max_pool2d(bn(F.conv2d(x, w["conv1.weight"], stride=2, padding=3), "bn1").relu(), 3, 2, 1)
    for stage, depth in enumerate(depths, 1):
        for block in range(depth):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            if arch == "resnet50":  # v1.5: the 3×3 convolution strides
                y = bn(F.conv2d(x, w[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
                y = bn(F.conv2d(y, w[f"{name}.conv2.weight"], stride=stride, padding=1), f"{name}.bn2").relu()
                y = bn(F.conv2d(y, w[f"{name}.conv3.weight"]), f"{name}.bn3")
            else:
                y = bn(F.conv2d(x, w[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1").relu()
                y = bn(F.conv2d(y, w[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in w:
                x = bn(F.conv2d(x, w[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = (x + y).relu()
    torch.testing.assert_close(encoder(images), x.mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)


def test_convolutions_start_as_he_et_al_say() -> None:
    weight = small(ResNetParams("resnet10", width=32)).state_dict()["layer2.0.conv2.weight"]  # (64, 64, 3, 3)
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03)


@pytest.mark.parametrize(("arch", "last"), [("resnet10", "bn2"), ("resnet50", "bn3")])
def test_a_block_may_start_as_its_shortcut(arch: str, last: str, generator: torch.Generator) -> None:
    encoder = small(ResNetParams(arch, width=4, zero_init_residual=True))  # type: ignore[arg-type]
    gains = {name: bool(p.any()) for name, p in encoder.named_parameters() if p.ndim == 1 and name.endswith("weight")}
    assert {name for name, used in gains.items() if not used} == {name for name in gains if name.split(".")[-2] == last}
    x = torch.randn(2, encoder.get_parameter("layer1.0.conv1.weight").shape[1], 8, 8, generator=generator)
    first = encoder.get_submodule("layer1.0")
    torch.testing.assert_close(first(x), first.get_submodule("downsample")(x).relu())


def test_impossible_width_is_named() -> None:
    with pytest.raises(ValueError, match="width is 0"):
        ResNetParams("resnet18", width=0)
