"""The GPU: is its driver new enough for the CUDA that torch was built with?"""

import ctypes
import importlib.util
import re
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.command_line.doctor.finding import Finding, fault, ok, warning

# CUDA's major version → the first driver that runs it (CUDA Toolkit release notes, minor version compatibility).
DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
KERNEL = Path("/proc/driver/nvidia/version")
WHEELS = "https://pytorch.org/get-started/locally"


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver: its version, where known, and the newest CUDA that it runs."""

    version: str
    cuda: tuple[int, int]
    gpus: int


@dataclass(frozen=True)
class Torch:
    """torch's version, and the CUDA that it was built with; None for a CPU build."""

    version: str
    cuda: str | None


def read_driver() -> Driver | None:
    """The driver of this machine, None where there is none. It is asked directly: torch would take seconds."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    newest, gpus = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(newest))
    if library.cuInit(0) == 0:
        library.cuDeviceGetCount(ctypes.byref(gpus))
    named = re.search(r"\b\d{3}\.[\d.]+", KERNEL.read_text(encoding="utf-8")) if KERNEL.exists() else None
    return Driver(named[0] if named else "", (newest.value // 1000, newest.value % 1000 // 10), gpus.value)


def read_torch() -> Torch:
    """What the installed torch says of itself, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torch is not installed")
    said = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    return Torch(str(said["__version__"]), said["cuda"])


def gpu(driver: Callable[[], Driver | None] = read_driver, torch: Callable[[], Torch] = read_torch) -> Finding:
    """Can torch use the GPU, if there is one? None is in order: everything runs on a CPU."""
    has, built = driver(), torch()
    if has is None or (not has.gpus and has.cuda == (0, 0)):
        return ok(f"no NVIDIA GPU: torch {built.version} trains on the CPU")
    named = f"NVIDIA driver {has.version}".strip()
    newest = ".".join(map(str, has.cuda))
    if built.cuda is None:
        return warning(
            f"There is a GPU ({named}), but torch {built.version} is a build for the CPU only.",
            f"To train on the GPU, install the same torch for CUDA {newest} or older: {WHEELS}",
        )
    major = int(built.cuda.partition(".")[0])
    if has.cuda[0] < major:
        return fault(
            f"The {named} is too old: it runs CUDA {newest}, and torch {built.version} needs CUDA {built.cuda}.",
            f"Install driver {DRIVERS.get(major, 'for CUDA ' + built.cuda)} or newer, or torch for CUDA "
            f"{has.cuda[0]}: {WHEELS}",
        )
    if not has.gpus:
        return warning(
            f"The {named} is installed, but it shows no GPU.",
            "Run nvidia-smi. In a container, start it with --gpus all. CUDA_VISIBLE_DEVICES may also hide GPUs.",
        )
    return ok(f"{has.gpus} × NVIDIA, driver {has.version} (CUDA {newest}), torch {built.version} (CUDA {built.cuda})")
