"""Time contenders in turns, round by round, so that their ratios hold on a busy machine too; measure peaks."""

import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import torch
from torch import nn

ROUNDS = 5


def seconds(work: Callable[[], object], device: torch.device, least: float = 0.0) -> float:
    """The time of a call: the mean over calls for at least `least` seconds.

    On a CPU with one thread this process's own time, which other processes do not lengthen.
    """
    now = process_time if device.type == "cpu" and torch.get_num_threads() == 1 else perf_counter

    def spent(calls: int) -> float:
        begin = now()
        for _ in range(calls):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return now() - begin

    once = spent(1)
    calls = int(least / once)  # the device is waited for after the last of them only, as in training
    return once if calls <= 1 else spent(calls) / calls


def in_turn(
    contenders: Mapping[str, Callable[[], object]], device: torch.device, rounds: int = ROUNDS, least: float = 0.1
) -> dict[str, float]:
    """Median seconds of each contender, after one warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            spent = seconds(work, device, least if turn else 0.0)
            if turn:
                times[name].append(spent)
    return {name: median(each) for name, each in times.items()}


def peak(dtype: torch.dtype, device: torch.device, n: int | None = None) -> float:
    """Measured peak FLOP/s: the better of a product of n × n matrices and a 3 × 3 convolution."""
    n = n or (8192 if device.type == "cuda" else 1536)
    images = max(1, n // 64)
    a = torch.randn(n, n, device=device, dtype=dtype)
    x = torch.randn(images, 256, 16, 16, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    conv = nn.Conv2d(256, 256, 3, padding=1, bias=False, device=device, dtype=dtype)
    conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    work: dict[float, Callable[[], object]] = {
        2.0 * n**3: lambda: a @ a,
        2.0 * images * 256 * 16 * 16 * 256 * 9: lambda: conv(x),
    }
    with torch.inference_mode():
        spent = {flops: [seconds(each, device, n / 1e4) for _ in range(ROUNDS + 1)] for flops, each in work.items()}
    return max(flops / median(each[1:]) for flops, each in spent.items())


def machine(device: torch.device) -> str:
    """The machine on which the figures were measured."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    units = [name for name in ("avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if f" {name} " in text]
    found = re.search(r"model name\s*: (.*)", text)
    return f"{found[1] if found else 'CPU'} ({', '.join(units) or 'no AVX-512'})"


def most_memory(device: torch.device) -> int:
    """Peak memory in bytes: of torch on the device, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage: its peak is inherited from the process that started this one.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024
