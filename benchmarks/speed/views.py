"""`python -m benchmarks.speed.views`: views/s of the two-view SimCLR recipe, beside lightly, torchvision v2 and kornia.

One process, one thread, CPU time, the contenders in turn round by round, so that their ratios hold on a busy machine
too. It runs in the peers' environment, which `make bench` creates; in another environment, it starts itself again in
that one.
"""

import importlib.util
import io
import json
import os
import platform
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Generator, Tensor

from models.views import augmentation
from models.views.augmentation import ViewParams
from serving.host.command import Parser

PEERS = Path(".scratch/peers/bin/python")
PHOTOS = Path("../shared/datasets/clothing.zip")
ROUNDS = 5


@dataclass(frozen=True)
class Setting:
    name: str
    source: int  # px
    size: int  # px
    strength: float
    blur: float
    images: int


SETTINGS = (
    Setting("32 px", 32, 32, 0.5, 0.0, 512),  # CIFAR-10, appendix B.9
    Setting("96 px, blur", 96, 96, 1.0, 0.5, 64),
    Setting("256 → 224 px, blur", 256, 224, 1.0, 0.5, 32),
)


def main() -> None:
    parser = Parser(prog="python -m benchmarks.speed.views", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"runs of each, of which the median (default: {ROUNDS})"
    )
    parser.add_argument("--eager", action="store_true", help="without ours compiled, which takes a minute")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    given = parser.parse_args()
    if importlib.util.find_spec("lightly") is None:
        if PEERS.exists() and Path(sys.executable) != PEERS.absolute():
            os.execv(PEERS.absolute(), [str(PEERS), "-m", "benchmarks.speed.views", *sys.argv[1:]])
        sys.exit(f"The libraries lightly, torchvision and kornia are missing in {PEERS.parents[1]}. Run `make bench`.")
    torch.set_num_threads(1)
    rows = []
    for setting in SETTINGS:
        rows += measure(setting, given.rounds, not given.eager)
        print(f"{setting.name} done", file=sys.stderr, flush=True)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, torch {torch.__version__}, one thread, CPU time, medians of {given.rounds} rounds\n")
    print(table(rows))
    if given.json:
        given.json.write_text(json.dumps({"torch": torch.__version__, "rounds": given.rounds, "rows": rows}, indent=2))


def measure(setting: Setting, rounds: int, compiled: bool) -> list[dict[str, str | float]]:
    """Views per second of each contender, medians over the rounds, and ours over it."""
    from benchmarks.speed.peers.transforms import peers  # noqa: PLC0415 – only where they are installed

    images = photos(setting.images, setting.source)
    contenders = {"ours": ours(images, setting, augmentation.augment)}
    compiled = compiled and setting.size < augmentation.LARGE  # larger ones go image by image, which is not compiled
    if compiled:
        contenders["ours, compiled"] = ours(images, setting, torch.compile(augmentation.augment))
    contenders |= peers(images, setting.size, setting.strength, setting.blur)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, two_views in contenders.items():
            rate = 2 * len(images) / seconds(two_views)
            if turn:  # the first is a warm-up
                rates[name].append(rate)
    middle = {name: median(each) for name, each in rates.items()}
    rows: list[dict[str, str | float]] = []
    for name, rate in middle.items():
        rows.append({"setting": setting.name, "library": name, "views/s": rate, "ours is": middle["ours"] / rate})
        if "ours, compiled" in middle:
            rows[-1]["compiled is"] = middle["ours, compiled"] / rate
    return rows


def seconds(work: Callable[[], object], least: float = 0.3) -> float:
    """A call's time: the mean over at least `least` seconds."""
    begin, calls = process_time(), 0
    while (spent := process_time() - begin) < least or not calls:
        work()
        calls += 1
    return spent / calls


def ours(
    images: Tensor, setting: Setting, augment: Callable[[Tensor, Tensor, int, ViewParams], Tensor]
) -> Callable[[], list[Tensor]]:
    s, generator = setting.strength, Generator().manual_seed(0)
    params = ViewParams(
        area=(0.08, 1.0), jitter=0.8, strengths=(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s), grey=0.2, blur=setting.blur
    )

    def two_views() -> list[Tensor]:
        drawn = [augmentation.draw(len(images), setting.source, setting.source, params, generator) for _ in range(2)]
        return [augment(images, draws, setting.size, params) for draws in drawn]

    return two_views


def photos(n: int, size: int) -> Tensor:
    """uint8 (n, 3, size, size): clothing, or where it is absent smooth noise."""
    if not PHOTOS.exists():
        noise = torch.rand(n, 3, 12, 12, generator=Generator().manual_seed(0))
        return (F.interpolate(noise, (size, size), mode="bicubic").clamp(0, 1) * 255).byte()
    with zipfile.ZipFile(PHOTOS) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][:n]
        images = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]
    fitted = [np.array(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)) for image in images]
    return torch.from_numpy(np.stack(fitted)).permute(0, 3, 1, 2).contiguous()


def table(rows: list[dict[str, str | float]]) -> str:
    columns = list(rows[0])
    cells = [columns, *([text(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])


def text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


if __name__ == "__main__":
    main()
