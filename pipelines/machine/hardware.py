"""What the machine has, and how it trains fastest: device, precision, memory layout, what is compiled."""

import ctypes
import os
import shutil
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models import parallel
from models.encoders.encoder import Encoder
from models.method import Method, MethodParams, Pretraining
from models.methods import BaselineParams
from pipelines.machine.flops import flops
from pipelines.project.config import PretrainParams

# FLOPs of a run above which compiling is made up for by its speed: on a CPU 20 to 60 s buy 15 % at most.
PAYS = {"cpu": 1e14, "cuda": 6e16}


@dataclass(frozen=True)
class Setting:
    """How the steps are computed: what decides the numbers on this machine."""

    precision: torch.dtype  # of the products; bfloat16 by autocast
    layout: torch.memory_format
    compiled: bool

    @property
    def weights(self) -> torch.dtype:
        return torch.float64 if self.precision == torch.float64 else torch.float32

    @property
    def bf16(self) -> bool:
        return self.precision == torch.bfloat16

    def shape(self, view: Tensor) -> Tensor:
        """A view as the encoder takes it fastest; other inputs stay as they are."""
        return view.to(self.weights, memory_format=self.layout) if view.ndim == 4 else view


def choose(
    how: PretrainParams,
    method: Method,
    params: MethodParams | BaselineParams,
    size: int,
    steps: int,
    device: torch.device,
) -> Setting:
    """The setting for a run of this many steps on images of this size, px: a function of the machine, never timed."""
    dtype = precision(how.precision, device, method.encoder, smallest_view(params, size))
    wanted = how.compile
    if wanted == "auto":
        wanted = flops(method, size) * steps * params.batch_size > PAYS[device.type]
    shape = torch.contiguous_format if how.sharded else method.encoder.LAYOUT  # FSDP2 wants whole rows
    return Setting(dtype, shape, bool(wanted) and compilable())


def compilable() -> bool:
    """Whether what compiling needs is here; else it is said."""
    needed = {
        "a C++ compiler (g++)": shutil.which(os.environ.get("CXX", "g++")),
        "Python's headers (python3-dev)": Path(sysconfig.get_path("include"), "Python.h").exists(),
    }
    if missing := [what for what, there in needed.items() if not there]:
        print(f"{missing[0]}: not here, so nothing is compiled: training runs, only slower", file=sys.stderr)
    return not missing


def place(setting: Setting, method: Method, device: torch.device) -> None:
    """Move the method to the device and make it as the setting says."""
    method.to(device=device, dtype=setting.weights, memory_format=setting.layout)  # type: ignore[call-overload]
    parallel.synchronise(method)
    allow_tf32(setting)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    else:
        keep_freed_memory()
    if setting.compiled:
        compile_parts(method, views=device.type == "cuda")


def allow_tf32(setting: Setting) -> None:
    """Convolutions in TF32 on a GPU, but where fp32 was asked for. It holds for the process until it is set again."""
    torch.backends.cudnn.allow_tf32 = setting.precision != torch.float32


def compile_parts(method: Method, views: bool) -> None:
    """Residual networks whole, transformers block by block: one small graph that every block shares.

    views: those as well, which pays on a GPU; on a CPU they are faster as they are, piece by piece in its cache.
    """
    if views:
        method.augment = torch.compile(method.augment, dynamic=False)
    whole = (*method.encoder.WHOLE, *(method.WHOLE if isinstance(method, Pretraining) else ()))
    for module in method.modules():
        if isinstance(module, whole):
            module.compile(dynamic=False)


def keep_freed_memory() -> None:
    """glibc gives large blocks back, and each step faults them in again: 50,000 times in one of a ResNet-18."""
    with suppress(OSError, AttributeError):  # elsewhere than on glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def smallest_view(params: MethodParams | BaselineParams, size: int) -> int:
    """Side of the smallest view, px."""
    return min(params.sides(size).values()) if isinstance(params, MethodParams) else size


def precision(wanted: str, device: torch.device, encoder: Encoder, smallest: int) -> torch.dtype:
    """`auto`: bf16 where the hardware multiplies it natively and it pays; elsewhere it would be slower than fp32.

    On a CPU, one thread, batch 64 to 128, steps as fast as fp32's: with matrix units (AMX) ResNets 1.4 to 1.7 times,
    ViTs 96 wide 0.6 to 0.7 times, since the casts cost more than the products save; with AVX-512's bf16 products
    ResNets 1.5 to 2 times (1.07 at the digits' size), ViTs 64 or 96 wide 0.8 to 0.9, 192 wide 1.3, 384 and 768 wide
    1.6 times. For ResNets the smallest view must cover the stride: torch 2.13's bf16 gradient of a strided
    convolution of a 1 × 1 map is garbage.
    """
    if wanted == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = encoder.bf16_pays(smallest) and cpu_bf16()
        wanted = "bf16" if native else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}[wanted]


def cpu_bf16() -> bool:
    """Whether the CPU multiplies bf16: matrix units (amx_bf16) or vectors (avx512_bf16)."""
    try:
        return "_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
