"""ResNet (He et al., 2015, arXiv:1512.03385) under torchvision's parameter names, without the classifier.

ResNet-50 strides in the 3×3 convolution, as torchvision's does. `small` is the stem of SimCLR's appendix B.9
for small images: one 3×3 convolution, no pooling; `small/2` is the same with stride 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from models.encoders.encoder import Encoder, EncoderParams, allow
from models.encoders.normalize import Normalize

DEPTHS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


@dataclass(frozen=True)
class ResNetParams(EncoderParams):
    """Its depth, its width and its stem."""

    BATCH_NORM = True

    arch: Literal["resnet10", "resnet18", "resnet50"]  # architecture
    width: int = 64  # channels of the first stage
    stem: Literal["imagenet", "small", "small/2"] = "imagenet"  # first layers; small: 3 × 3; small/2: with stride 2
    zero_init_residual: bool = False  # start each block as its shortcut (SimCLR's official code)

    def __post_init__(self) -> None:
        allow(self.width >= 1, "width", self.width, "1 or more")

    def network(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> Encoder:
        return ResNet(self, mean, std)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut: (B, c_in, H, W) → (B, c, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, c_in: int, c: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c)
        self.conv2 = nn.Conv2d(c, c, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(c_in, c, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.downsample(x))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut: (B, c_in, H, W) → (B, 4 c, H / stride, W / stride)."""

    expansion = 4

    def __init__(self, c_in: int, c: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c)
        self.conv2 = nn.Conv2d(c, c, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c)
        self.conv3 = nn.Conv2d(c, 4 * c, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * c)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(c_in, 4 * c, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + self.downsample(x))  # type: ignore[no-any-return]


def shortcut(c_in: int, c_out: int, stride: int) -> nn.Module:
    """The identity when the shape stays the same, otherwise a 1×1 convolution."""
    if stride == 1 and c_in == c_out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))


class ResNet(Encoder):
    """uint8 or float-in-[0, 1] images (B, 3, H, W) → features (B, dim), the mean over positions."""

    LAYOUT = torch.channels_last

    def __init__(self, params: ResNetParams, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        w = params.width
        block = Bottleneck if params.arch == "resnet50" else BasicBlock
        self.dim = 8 * w * block.expansion
        self.stride = {"imagenet": 32, "small": 8, "small/2": 16}[params.stem]  # pixels per position of the last map
        self.normalize = Normalize(mean, std)
        if params.stem == "imagenet":
            self.conv1 = nn.Conv2d(3, w, 7, 2, 3, bias=False)
            self.maxpool: nn.Module = nn.MaxPool2d(3, 2, 1)
        else:
            self.conv1 = nn.Conv2d(3, w, 3, 2 if params.stem == "small/2" else 1, 1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(w)
        self.relu = nn.ReLU(inplace=True)
        widths = [w, *(w * 2**i * block.expansion for i in range(4))]
        for i, (depth, (c_in, c_out)) in enumerate(zip(DEPTHS[params.arch], pairwise(widths), strict=True)):
            c = c_out // block.expansion
            first = block(c_in, c, stride=1 if i == 0 else 2)
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *(block(c_out, c, 1) for _ in range(depth - 1))))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            elif params.zero_init_residual and isinstance(m, BasicBlock | Bottleneck):
                nn.init.zeros_((m.bn2 if isinstance(m, BasicBlock) else m.bn3).weight)

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.normalize(images)))))
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
        return x.mean(dim=(2, 3))  # type: ignore[no-any-return]

    def bf16_pays(self, side: int) -> bool:
        return side >= self.stride


ResNet.WHOLE = (ResNet,)
