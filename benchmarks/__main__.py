"""`make bench`: views/s and step images/s of every method and recipe, and what precision and layout bring.

The variants of one method are measured in turn in the same process, so that their ratio holds on a busy machine too.
"""

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import nn

from models import methods, optim
from pipelines import config, hardware
from pipelines.config import Config
from pipelines.report import METHODS, text

RUNS = 5
RECIPES = [Path("params.yaml"), Path("recipes/cifar10-small.yaml"), Path("recipes/photos.yaml")]  # others ask for a GPU


@dataclass(frozen=True)
class Variant:
    name: str
    dtype: torch.dtype
    layout: torch.memory_format


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("recipes", nargs="*", type=Path, default=RECIPES)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows: list[dict[str, str]] = []
    with hardware.device() as device:
        for path in given.recipes:
            c = config.load(path)
            for name in METHODS:
                rows += [{"recipe": path.stem} | row for row in measure(c, name, device)]
                print(f"{path.stem} {name}: {rows[-1]['step images/s']} images/s", flush=True)
        machine = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    print(f"\n{machine}, torch {torch.__version__}, {given.threads} thread(s), medians of {RUNS} runs\n\n{text(rows)}")
    if given.json:
        given.json.write_text(
            json.dumps({"machine": machine, "torch": torch.__version__, "rows": rows}, indent=2) + "\n"
        )


def measure(c: Config, name: str, device: torch.device) -> list[dict[str, str]]:
    """One row a variant: plain fp32, channels-last where it applies, and what `auto` chooses."""
    params, size = c.method(name), c.prepare.size
    images = torch.randint(0, 256, (params.batch_size, 3, size, size), dtype=torch.uint8).to(device)
    method = methods.build(name, params, size, (0.5,) * 3, (0.25,) * 3, 0)
    assert isinstance(method, nn.Module)
    method.to(device).train()
    draws = [d.to(device) for d in method.draw(params.batch_size, size, size, torch.Generator().manual_seed(0))]
    best = hardware.layout(method.encoder)
    variants = [Variant("fp32", torch.float32, torch.contiguous_format)]
    if best == torch.channels_last:
        variants.append(Variant("fp32 channels-last", torch.float32, best))
    auto = hardware.precision("auto", device, method.encoder, size)
    if auto != torch.float32:
        variants.append(Variant("bf16", auto, best))
    optimizer = optim.build(params.optim, method)

    def step(v: Variant) -> None:
        views = [x.contiguous(memory_format=v.layout) if x.ndim == 4 else x for x in method.views(images, draws)]
        with torch.autocast(device.type, v.dtype, enabled=v.dtype != torch.float32):
            loss = method.loss(views, 0.5)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        method.after_step(0.5)

    views_rate = params.batch_size / seconds(lambda: method.views(images, draws), device)
    rows: list[dict[str, str]] = []
    for v in variants:
        method.to(memory_format=v.layout)  # type: ignore[call-overload]
        rate = params.batch_size / seconds(lambda v=v: step(v), device)  # type: ignore[misc]
        first = float(rows[0]["step images/s"].replace(",", "")) if rows else rate
        rows.append(
            {
                "method": name,
                "variant": v.name,
                "batch": str(params.batch_size),
                "images augmented/s": f"{views_rate:,.0f}",
                "step images/s": f"{rate:,.0f}",
                "to fp32": f"{rate / first:.2f}×",
            }
        )
    return rows


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Median over RUNS, after a warm-up, each run long enough to be timed."""

    def once(repeats: int) -> float:
        begin = perf_counter()
        for _ in range(repeats):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (perf_counter() - begin) / repeats

    once(2)
    repeats = max(1, min(50, int(0.3 / once(1))))
    return median(once(repeats) for _ in range(RUNS))


if __name__ == "__main__":
    main()
