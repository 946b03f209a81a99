"""What the machine has: the device, the precision and the memory layout that suit it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import gettempdir

import torch

from models.encoder import Encoder
from models.resnet import ResNet


@contextmanager
def device() -> Iterator[torch.device]:
    """A GPU of our own (the first that no other run holds, else we wait for the first), or the CPU."""
    if not torch.cuda.is_available():
        yield torch.device("cpu")
        return
    with ExitStack() as stack:
        paths = [Path(gettempdir(), f"encoder-foundry-gpu-{i}.lock") for i in range(torch.cuda.device_count())]
        locks = [stack.enter_context(path.open("w")).fileno() for path in paths]
        chosen = next((i for i, lock in enumerate(locks) if taken(lock)), None)
        if chosen is None:
            chosen = 0
            fcntl.flock(locks[0], fcntl.LOCK_EX)
        yield torch.device("cuda", chosen)


def taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def precision(wanted: str, device: torch.device, encoder: Encoder, smallest: int) -> torch.dtype:
    """`auto`: bf16 where the hardware multiplies it natively and it pays; elsewhere it would be slower than fp32.

    On a CPU with bf16 matrix units, one thread, batch 64 to 128: ResNet steps 1.4 to 1.7 times as fast as fp32,
    steps of small ViTs 0.6 to 0.7 times, since the casts cost more than the products save. There the smallest view
    must cover the stride: torch 2.13's bf16 gradient of a strided convolution of a 1 × 1 map is garbage.
    """
    if wanted == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = isinstance(encoder, ResNet) and smallest >= encoder.stride and cpu_bf16()
        wanted = "bf16" if native else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[wanted]


def cpu_bf16() -> bool:
    """Whether the CPU has bf16 matrix units."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def layout(encoder: Encoder) -> torch.memory_format:
    """Convolutions run fastest channels-last."""
    return torch.channels_last if isinstance(encoder, ResNet) else torch.contiguous_format


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
