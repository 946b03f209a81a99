"""Keep full precision where a loss needs it."""

import torch
from torch import Tensor


def full_precision(x: Tensor) -> torch.autocast:
    """A context without autocast. x: a tensor on the device in question."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


def at_least_fp32(x: Tensor) -> Tensor:
    """bf16 and fp16 as float32; other types unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
