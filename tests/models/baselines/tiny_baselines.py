"""The three baselines that learn from labels, with small networks."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from models import start
from models.baselines.fixmatch import FixMatch, FixMatchParams
from models.baselines.pseudolabel import PseudoLabelParams
from models.baselines.supervised import SupervisedParams
from models.method import Baseline
from models.methods import BaselineParams
from models.views.augmentation import ViewParams
from tests.models.conftest import OPTIM, RESNET, small

PLAIN = ViewParams(area=(0.8, 1.0), flip=0.0)
STRONG = replace(PLAIN, area=(0.5, 1.0))
FIXMATCH = FixMatchParams(4, OPTIM, PLAIN, STRONG, unlabelled=2)
PARAMS: dict[str, BaselineParams] = {
    "supervised": SupervisedParams(4, OPTIM, PLAIN),
    "pseudolabel": PseudoLabelParams(4, OPTIM, PLAIN, unlabelled=2),
    "fixmatch": FIXMATCH,
}


def probabilities(logits: list[float]) -> list[float]:
    powers = [math.exp(x) for x in logits]
    return [p / sum(powers) for p in powers]


def drawn(made: Baseline, images: Tensor, y: Tensor, seed: int = 0) -> list[Tensor]:
    """Views of images and their labels."""
    height, width = images.shape[2:]
    *draws, _ = made.draw(len(images), height, width, torch.Generator().manual_seed(seed))
    return made.views(images, [*draws, y])


def made_of(name: str, params: BaselineParams | None = None, classes: int = 3) -> tuple[Baseline, nn.Module]:
    """Under both its types; a head that starts at almost nothing would hide what a gradient reaches."""
    made = start.baseline(name, small(RESNET), params or PARAMS[name], 16, classes, seed=0)
    for p in made.parameters():
        if p.requires_grad and p.shape[0] == classes:
            nn.init.normal_(p)
    if isinstance(made, FixMatch):
        made.average.load_state_dict(made.student.state_dict())
    return made, made
