"""Small images, encoders and a seeded generator."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from torch import Generator, Tensor

from models.encoders.encoder import Encoder
from models.encoders.resnet import ResNetParams
from models.encoders.vit import ViTParams
from models.method import Method
from models.optim import OptimParams

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
OPTIM = OptimParams("adamw", 1e-3, 0.05)
RESNET = ResNetParams("resnet10", width=4, stem="small/2")
VIT = ViTParams("vit_nano", patch_size=4)


@pytest.fixture(autouse=True)
def seeded_in_one_thread() -> Iterator[None]:
    """Weights are the same every time; tensors this small are computed fastest by one thread."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def generator() -> Generator:
    return torch.Generator().manual_seed(0)


def noise_images(n: int, size: int, seed: int = 0) -> Tensor:
    """uint8 (n, 3, size, size)."""
    return torch.randint(256, (n, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def views_of(method: Method, images: Tensor, generator: Generator) -> list[Tensor]:
    """Views by what the generator draws."""
    return method.views(images, method.draw(len(images), images.shape[2], images.shape[3], generator))


def pillow(image: Tensor) -> Image.Image:
    """uint8 (3, H, W) → RGB."""
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> Tensor:
    """RGB or L → (3 or 1, H, W) in [0, 1]."""
    pixels: NDArray[np.uint8] = np.array(image).reshape(image.height, image.width, -1)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def small(params: ResNetParams | ViTParams, image_size: int = 16) -> Encoder:
    return params.build(image_size, MEAN, STD)


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """scikit-learn's 1,797 digits, shuffled: pixels (n, 64) and what they are (n,)."""
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    return found.data[order].astype(np.float32), found.target[order].astype(np.int64)
