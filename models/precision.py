"""Where a loss must not lose digits."""

import torch
from torch import Tensor


def full_precision(x: Tensor) -> torch.autocast:
    """A context in which autocast leaves products as they are; x: on the device in question."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


def at_least_fp32(x: Tensor) -> Tensor:
    """bf16 and fp16 as float32, others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
