"""`python -m benchmarks.speed.prepare`: prepare folders of 10³, 10⁴ and 10⁵ small JPEGs; images/s and memory.

Each folder is prepared by its own process, so that peaks of memory do not mix. The folders are temporary.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import psutil
from PIL import Image

from data.decoding.decode import Preprocess
from data.prepare import prepare
from serving.host.command import Parser

SIDE = 80  # of the files, px
SIZE = 64  # of the prepared images
SAMPLE_S = 0.1
MB = 1e6


def main() -> None:
    parser = Parser(prog="python -m benchmarks.speed.prepare", description=__doc__)
    parser.add_argument(
        "counts",
        nargs="*",
        type=int,
        default=[1000, 10_000, 100_000],
        help="numbers of images, ascending (default: 1000 10000 100000)",
    )
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # what a process of its own does
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.workers)))
        return
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder, there = Path(scratch, "raw"), 0
        for count in given.counts:
            write_images(folder, there, count)
            there = count
            command = [sys.executable, "-m", "benchmarks.speed.prepare", "--one", scratch]
            command += ["--workers", str(given.workers)] if given.workers else []
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            figures = json.loads(done.stdout.splitlines()[-1])
            rows.append(
                {
                    "images": f"{count:,}",
                    "seconds": f"{figures['seconds']:.1f}",
                    "images/s": f"{count / figures['seconds']:,.0f}",
                    "parent's CPU, µs per image": f"{1e6 * figures['cpu'] / count:.0f}",
                    "parent, MB": f"{figures['parent'] / MB:.0f}",
                    "grown, bytes per image": f"{(figures['parent'] - figures['start']) / count:,.0f}",
                    "children together, MB": f"{figures['children'] / MB:.0f}",
                }
            )
            print(rows[-1], file=sys.stderr)
    from pipelines.reporting.tables import text  # noqa: PLC0415 - and torch, which no worker may have to import

    print(f"\nJPEGs of {SIDE} px to {SIZE} px, {given.workers or psutil.cpu_count()} workers\n\n{text(rows)}")


def write_images(folder: Path, first: int, last: int) -> None:
    """The files from first to last: crops of two photographs, 1,000 per class folder, all different."""
    from sklearn.datasets import load_sample_images  # noqa: PLC0415

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    rng = np.random.default_rng(first)
    for number in range(first, last):
        photo = photos[number % len(photos)]
        left, top = (int(rng.integers(side - SIDE)) for side in photo.size)
        path = folder / f"{number // 1000:06d}" / f"{number:09d}.jpg"
        if number == first or number % 1000 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((left, top, left + SIDE, top + SIDE)).save(path, quality=85, comment=str(number))


def measure(scratch: Path, workers: int | None) -> dict[str, float]:
    """Seconds, and bytes: of this process before and at its peak, of its children together at theirs.

    Not getrusage: its peak is inherited from the process that started this one.
    """
    start = psutil.Process().memory_info().rss
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(SAMPLE_S):
            together = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    together += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], together)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin, cpu = perf_counter(), process_time()
    prepare(
        scratch / "raw", scratch / "prepared", name="jpegs", preprocess=Preprocess(SIZE), val=0.05, test=0.05,
        max_bad_fraction=0.0, labels=True, seed=0, workers=workers,
    )  # fmt: skip
    seconds, cpu = perf_counter() - begin, process_time() - cpu
    stop.set()
    watcher.join()
    highest = int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024
    return {"seconds": seconds, "cpu": cpu, "start": start, "parent": highest, "children": peak[0]}


if __name__ == "__main__":
    main()
