"""`python -m benchmarks.diagnose --seeds 0 1 2`: healthy and deliberately broken trainings, and what each is called.

Trains every case once a seed on the bundled digits and adds what was seen to tests/models/histories/<method>.csv, on
which the tests judge; what is there already is not trained again. Prints the last figures and the diagnoses.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from benchmarks.report import markdown
from benchmarks.workspace import BARE, ENVIRONMENT, ROOT, configure, workspace
from models.diagnose import Row, diagnose
from models.methods import MethodParams
from pipelines import config

RECORDS = ROOT / "tests/models/histories"
PROGRAM = BARE + "import runpy; runpy.run_module('pipelines.pretrain', run_name='__main__')"
SHOWN = ("relative_loss", "effective_rank", "feature_cosine", "consistency", "gain", "embedding_uniformity")
LEFT_OUT = {"lr", "grad_norm", "images_per_second", "input_wait", "memory"}
FEW: dict[str, Any] = {
    "prepare.val": 0.25,
    "prepare.test": 0.73,
    "mae.batch_size": 16,
    "mae.area": [1.0, 1.0],
}  # 38 to train on
FEW |= {"mae.optim.lr": 0.005, "mae.epochs": 2500}
# Case → what is changed in the recipe, and the name that is right.
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "simclr healthy": ({}, "healthy"),
    "simclr temperature 100": ({"simclr.temperature": 100.0}, "uniform collapse"),
    "simclr no augmentation": (
        {"simclr.area": [1.0, 1.0], "simclr.rotation": 0.0, "simclr.strength": 0.0},
        "trivial task",
    ),
    "simclr lr × 1000": ({"simclr.optim.lr": 2.0}, "diverged"),
    "simclr lr / 1000": ({"simclr.optim.lr": 2e-6}, "undertrained"),
    "mae healthy": ({}, "healthy"),
    "mae mask 0.05": ({"mae.mask_ratio": 0.05}, "trivial task"),
    "mae lr 0.05": ({"mae.optim.lr": 0.05}, "complete collapse"),
    "mae few images": (FEW, "overfitted"),
    "mae lr × 1000": ({"mae.optim.lr": 3.0}, "diverged"),
    "mae lr / 1000": ({"mae.optim.lr": 3e-6}, "undertrained"),
    "dino healthy": ({}, "healthy"),
    "dino no centring": ({"dino.center_momentum": 1.0}, "complete collapse"),
    "dino no sharpening": (
        {"dino.teacher_temperature": 0.1, "dino.warmup_teacher_temperature": 0.1},
        "uniform collapse",
    ),
    "dino momentum 0": ({"dino.momentum": 0.0}, "dimensional collapse"),
    "dino lr × 1000": ({"dino.optim.lr": 1.0}, "diverged"),
    "dino lr / 1000": ({"dino.optim.lr": 1e-6}, "undertrained"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnose", description=__doc__)
    parser.add_argument("--seeds", nargs="*", type=int, default=[], help="to train; none: print what is recorded")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--share", type=float, default=1.0, help="of the recipe's epochs")
    given = parser.parse_args()
    if given.seeds:
        with workspace() as folder:
            for seed in given.seeds:
                for case in given.cases:
                    train(folder, case, seed, given.share)
    print(markdown(list(table())))


def train(folder: Path, case: str, seed: int, share: float) -> None:
    """Unless it is recorded; one that is stopped by a sentence is recorded as far as it came."""
    name = case.split(maxsplit=1)[0]
    changes = CASES[case][0]
    epochs = max(1, round(changes.get(f"{name}.epochs", recipe()[name]["epochs"]) * share))
    if (case, seed, epochs) in recorded():
        return
    (folder / "params.yaml").write_text(yaml.safe_dump(recipe()))
    configure(folder, changes | {f"{name}.epochs": epochs})
    subprocess.run([sys.executable, "-m", "pipelines.prepare"], cwd=folder, env=ENVIRONMENT, check=True)
    configure(folder, {"seed": seed})  # of the training; the split is that of seed 0
    done = subprocess.run([sys.executable, "-c", PROGRAM, name], cwd=folder, env=ENVIRONMENT, check=False)
    finished, unfinished = folder / "artifacts" / name, folder / ".scratch/pretrain" / name
    record(case, seed, epochs, (unfinished if done.returncode else finished) / "history.jsonl")


def record(case: str, seed: int, epochs: int, history: Path) -> None:
    """Add the looks of a history, to five digits."""
    rows = [row for row in map(json.loads, history.read_text().splitlines()) if "held_out_loss" in row]
    path = RECORDS / f"{case.split(maxsplit=1)[0]}.csv"
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = [key for key in rows[0] if key not in LEFT_OUT]
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(["case", "seed", "epochs", *keys])
        writer.writerows([case, seed, epochs, *(f"{row[key]:.5g}" for key in keys)] for row in rows)


def recorded() -> dict[tuple[str, int, int], list[Row]]:
    """(case, seed, epochs) → the looks of that training."""
    found: dict[tuple[str, int, int], list[Row]] = {}
    for path in sorted(RECORDS.glob("*.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                run = row.pop("case"), int(row.pop("seed")), int(row.pop("epochs"))
                found.setdefault(run, []).append({key: float(value) for key, value in row.items()})
    return found


def table() -> Iterator[dict[str, Any]]:
    """A row a training that is recorded: its last figures and the diagnosis."""
    for (case, seed, epochs), looks in recorded().items():
        figures = {key: f"{looks[-1][key]:.3g}" for key in SHOWN if key in looks[-1]}
        found = diagnose(case.split()[0], params(case), looks).name
        yield {"case": case, "seed": seed, "epochs": epochs} | dict.fromkeys(SHOWN, "") | figures | {"diagnosis": found}


@cache
def params(case: str) -> MethodParams:
    """Of the method in this case."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        path.write_text(yaml.safe_dump(recipe()))
        configure(Path(folder), CASES[case][0])
        return config.load(path).method(case.split(maxsplit=1)[0])


def recipe() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "recipes/digits.yaml").read_text())
    return loaded


if __name__ == "__main__":
    main()
