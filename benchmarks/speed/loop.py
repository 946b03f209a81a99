"""A training run of the real loop, in its own process and folder: rates, input wait and memory from its history.

The folder is a project as `pipelines.pretrain` wants it: this tree's sources, params.yaml, and prepared images.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import reduce
from pathlib import Path
from statistics import median
from subprocess import TimeoutExpired
from typing import Any

import numpy as np
import yaml

from data.decoding.decode import Preprocess
from data.shards import INDEX, Manifest, ShardWriter, write_table
from pipelines.project.stage import TRY_AGAIN

ROOT = Path(__file__).resolve().parents[2]
NO_SOURCES = ("__pycache__", "raw", "prepared", ".prepared*", "run")
# As on a machine without MLflow; what the process took at the most is written when it ends.
PROGRAM = """
import sys; sys.modules["mlflow"] = None
import json, torch
from benchmarks.speed.timing import most_memory
from pipelines import pretrain
from pipelines.engine import prefetch
from pipelines.project import stage

name = sys.argv[1]
torch.set_num_threads(int(sys.argv[2]) or torch.get_num_threads())
prefetch.RESIDENT *= int(sys.argv[3])
try:
    stage.run(f"pretrain@{name}", lambda: pretrain.main(name))
finally:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    open(f"memory-{name}.json", "w").write(json.dumps(most_memory(device)))
"""


def project(folder: Path, recipe: str, changes: dict[str, Any], prepared: Path) -> None:
    """Make, or bring up to date, the folder: a recipe with other values under dotted keys, on prepared images."""
    for package in ("data", "models", "pipelines", "serving", "benchmarks"):
        shutil.rmtree(folder / package, ignore_errors=True)
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns(*NO_SOURCES))
    shutil.copyfile(ROOT / "dvc.yaml", folder / "dvc.yaml")
    params = yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text())
    for key, value in changes.items():
        *sections, last = key.split(".")
        reduce(dict.__getitem__, sections, params)[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / "data" / "prepared").symlink_to(prepared.absolute())


def synthetic(folder: Path, images: int, size: int) -> None:
    """Prepared images (all of the train split) of noise: the loop's speed does not depend on them."""
    if folder.exists():
        return
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with ShardWriter(building, size) as writer:
        for _ in range(images):
            writer.append(rng.integers(0, 256, (3, size, size), np.uint8))
    write_table(building / "index.csv", INDEX, [(f"{i}.png", "train", "", "", size, size) for i in range(images)])
    Manifest(
        "noise",
        images,
        {"train": images},
        (),
        {},
        0,
        0,
        0,
        (0.5,) * 3,
        (0.29,) * 3,
        Preprocess(size),
        f"noise-{images}",
    ).write(building)
    building.rename(folder)


def train(folder: Path, method: str, seconds: float | None = None, threads: int = 0, resident: bool = True) -> bool:
    """Train; return whether the run is finished. After `seconds` it saves and stops, and the next call resumes it.

    threads: of the CPU, 0 for torch's own choice. resident: all images may be kept on the GPU. Exits with the end of
    the log when the run fails.
    """
    if (folder / "artifacts" / "methods" / method / "checkpoint.pt").exists():
        return True
    log = folder / f"{method}.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, method, str(threads), str(int(resident))],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": "."} | ({"OMP_NUM_THREADS": str(threads)} if threads else {}),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        code = process.wait(seconds)
    except TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    if code not in (0, TRY_AGAIN):
        tail = "\n".join(log.read_text().splitlines()[-20:])
        sys.exit(f"The training run of {method} in {folder} ended with status {code}. Its log ends with:\n" + tail)
    return code == 0


def history(folder: Path, method: str) -> list[dict[str, float]]:
    """The rows of a training run so far."""
    paths = (folder / "artifacts" / "methods" / method, folder / ".scratch" / "pretrain" / method)
    path = next((p for p in paths if (p / "history.jsonl").exists()), None)
    return [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()] if path else []


def figures(folder: Path, method: str) -> dict[str, Any]:
    """images/s and input wait, medians over the rows but for the warm-up; GB at the most; steps; seconds in steps."""
    rows = history(folder, method)
    steady = rows[min(len(rows) // 2, 3) :]
    per_row = np.diff([0.0, *(row["step"] for row in rows)])
    batch = yaml.safe_load((folder / "params.yaml").read_text())[method]["batch_size"]
    spent = [batch * n / row["images_per_second"] for n, row in zip(per_row, rows, strict=True)]
    return {
        "images/s": median(row["images_per_second"] for row in steady),
        "input wait, %": median(row["input_wait"] for row in steady),
        "memory, GB": json.loads((folder / f"memory-{method}.json").read_text()) / 1e9,
        "steps": int(rows[-1]["step"]),
        "batch": batch,
        "minutes in steps": sum(spent) / 60,
        "loss": [[row["step"], row["loss"]] for row in rows[:: max(1, len(rows) // 100)]],
    }
