"""What a training run costs: operations and memory, counted on the meta device, where nothing is computed."""

import copy
import os
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.method import Method
from pipelines.project.stage import StageError

COUNTED = 4  # images
LARGEST_FILE = 2**31  # bytes; protobuf writes no larger message


def flops(method: Method, size: int, backward: bool = True, images: int = COUNTED) -> float:
    """FLOPs per image of a step: every view forward and, where a gradient flows, backward. images: of the batch."""
    shadow = copy.deepcopy(method).to("meta").train()
    batch = torch.empty(images, 3, size, size, dtype=torch.uint8, device="meta")
    draws = [d.to("meta") for d in shadow.draw(images, size, size, torch.Generator())]
    views = shadow.views(batch, draws)
    with FlopCounterMode(display=False) as counter:
        loss = shadow.loss(views, 0.5)
        if backward:
            loss.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops() / images)


def encoder_flops(encoder: nn.Module, size: int) -> float:
    """FLOPs of one image through an encoder in use: forward, in eval mode."""
    shadow = copy.deepcopy(encoder).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(torch.empty(1, 3, size, size, dtype=torch.uint8, device="meta"))
    return float(counter.get_total_flops())


def views(method: Method, n: int, size: int) -> float:
    """Images that go through the backbone, forward and backward, in a step on n images: every view, by its area."""
    device = next(method.parameters()).device
    images = torch.zeros(n, 3, size, size, dtype=torch.uint8, device=device)
    with torch.device("cpu"):  # where the caller builds on the meta device, chance still comes from the CPU
        draws = method.draw(n, size, size, torch.Generator())
    made = method.views(images, [d.to(device) for d in draws])
    return sum(view.numel() for view in made if view.ndim == 4) / images[0].numel()


def check_size(name: str, build: Callable[[], Method], device: torch.device) -> None:
    """Raises StageError where a method is too large for this machine's memory, or its encoder for an ONNX file.

    Both are known before anything is trained: `build` is called on the meta device, which gives sizes without numbers.
    """
    with torch.device("meta"):
        method = build()
    check_file(name, method.encoder)
    check_room(name, method, device)


def check_file(name: str, encoder: nn.Module) -> None:
    """Raises StageError where the weights exceed an ONNX file in fp32, of which a lower precision is made."""
    size = 4 * sum(x.numel() for x in (*encoder.parameters(), *encoder.buffers()))
    if size >= LARGEST_FILE:
        raise StageError(
            f"The encoder of {name} has {size / 2**30:.2f} GiB of weights in fp32. Allowed: less than "
            f"{LARGEST_FILE / 2**30:.0f} GiB, the most that an ONNX file holds. "
            f"Choose a smaller encoder in the section {name} of params.yaml."
        )


def check_room(name: str, method: nn.Module, device: torch.device) -> None:
    """Raises StageError where the system would kill the process without a message.

    On a CPU a method needs its weights, their gradient and two moments; on a GPU this machine holds the weights only
    for a moment.
    """
    weights = sum(p.numel() * p.element_size() for p in method.parameters())
    need, has = weights * (4 if device.type == "cpu" else 1), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if need > has:
        raise StageError(
            f"The network of {name} needs {need / 1e9:,.0f} GB of memory, and this machine has {has / 1e9:,.0f} GB. "
            f"Make the widths and depths of the section {name} in params.yaml smaller."
        )
