"""What a training costs: floating-point operations, counted on the meta device, where nothing is computed."""

import copy
from typing import cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.methods import Method

COUNTED = 4  # images


def flops(method: Method, size: int, backward: bool = True) -> float:
    """FLOPs an image of a step: every view forward and, where a gradient flows, backward."""
    assert isinstance(method, nn.Module)
    shadow = copy.deepcopy(method).to("meta").train()
    images = torch.empty(COUNTED, 3, size, size, dtype=torch.uint8, device="meta")
    draws = [d.to("meta") for d in shadow.draw(COUNTED, size, size, torch.Generator())]
    views = cast(Method, shadow).views(images, draws)
    with FlopCounterMode(display=False) as counter:
        loss = cast(Method, shadow).loss(views, 0.5)
        if backward:
            loss.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops() / COUNTED)


def views(method: Method, n: int, size: int) -> float:
    """Images that go through the backbone, forward and backward, in a step on n images: every view, by its area."""
    images = torch.zeros(n, 3, size, size, dtype=torch.uint8)
    made = method.views(images, method.draw(n, size, size, torch.Generator()))
    return sum(view.numel() for view in made if view.ndim == 4) / images[0].numel()
