"""DINO with small networks."""

from typing import Any

from models.encoders.resnet import ResNetParams
from models.encoders.vit import ViTParams
from models.methods.dino import DINO, DINOParams
from tests.models.conftest import OPTIM, VIT, small


def dino(encoder: ResNetParams | ViTParams = VIT, **changes: Any) -> DINO:
    small_head = {"head_hidden": 16, "head_bottleneck": 8, "head_dim": 12, "local_crops": 3, "local_size": 8}
    return DINO(small(encoder), DINOParams(encoder, 1, 4, OPTIM, **(small_head | changes)), 16)
