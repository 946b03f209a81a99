"""`python -m benchmarks.studies.diagnose --seeds 0 1 2`: healthy and broken training runs, and their diagnoses.

Trains every case once per seed and adds what was seen to tests/models/histories/<method>.csv, which the tests judge.
It skips what is recorded already. It prints the last figures and the diagnoses. Most cases train on the bundled digits;
those of recipe photos train on the images of `--photos FOLDER`.
"""

import csv
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.report import markdown
from benchmarks.workspace import BARE, ENVIRONMENT, ROOT, configure, workspace
from models.diagnose import diagnose
from models.diagnosis import Name, Row
from models.method import MethodParams
from pipelines.project import config
from serving.host.command import Parser

RECORDS = ROOT / "tests/models/histories"
PROGRAM = BARE + "import runpy; runpy.run_module('pipelines.pretrain', run_name='__main__')"
SHOWN = (
    "relative_loss",
    "effective_rank",
    "feature_cosine",
    "consistency",
    "gain",
    "teacher_entropy",
    "embedding_uniformity",
)
LEFT_OUT = {"lr", "grad_norm", "images_per_second", "input_wait", "memory"}
FEW: dict[str, Any] = {
    "prepare.val": 0.25,
    "prepare.test": 0.73,
    "mae.batch_size": 16,
    "mae.area": [1.0, 1.0],
}  # 38 to train on
FEW |= {"mae.optim.lr": 0.005, "mae.epochs": 2500}


class Case(NamedTuple):
    """Changes of a recipe, and the right name of the diagnosis."""

    changes: dict[str, Any]
    name: Name
    recipe: str = "digits"


def lars(lr: float, epochs: int) -> dict[str, Any]:
    """SimCLR as imagenet-resnet50 trains it, whose rate at its batch of 4,096 is 4.8, on a small encoder."""
    optim = {"name": "lars", "lr": lr, "weight_decay": 1e-6, "warmup": 0.01}
    encoder = {"simclr.encoder.width": 8, "simclr.temperature": 0.1}
    return encoder | {"simclr.optim": optim, "simclr.epochs": epochs}


def sharpened(temperature: float) -> dict[str, Any]:
    """DINO with this temperature of the teacher throughout."""
    return {"dino.teacher_temperature": temperature, "dino.warmup_teacher_temperature": temperature}


CASES = {
    "simclr healthy": Case({}, "healthy"),
    "simclr LARS": Case(lars(4.8, 3000), "healthy"),
    "simclr temperature 100": Case({"simclr.temperature": 100.0}, "uniform collapse"),
    "simclr no augmentation": Case(
        {"simclr.area": [1.0, 1.0], "simclr.rotation": 0.0, "simclr.strength": 0.0}, "trivial task"
    ),
    "simclr lr × 1000": Case({"simclr.optim.lr": 2.0}, "diverged"),
    "simclr LARS lr × 10": Case(lars(48.0, 60), "diverged"),
    "simclr LARS lr × 100": Case(lars(480.0, 60), "diverged"),
    "simclr lr / 1000": Case({"simclr.optim.lr": 2e-6}, "undertrained"),
    "mae healthy": Case({}, "healthy"),
    "mae photos": Case({}, "healthy", "photos"),
    "mae mask 0.05": Case({"mae.mask_ratio": 0.05}, "trivial task"),
    "mae lr 0.05": Case({"mae.optim.lr": 0.05}, "complete collapse"),
    "mae few images": Case(FEW, "overfitted"),
    "mae lr × 1000": Case({"mae.optim.lr": 3.0}, "diverged"),
    "mae lr / 1000": Case({"mae.optim.lr": 3e-6}, "undertrained"),
    "dino healthy": Case({}, "healthy"),
    "dino ViT": Case(
        {
            "dino.encoder": {"arch": "vit_nano", "patch_size": 4, "pool": "mean"},
            "dino.optim.lr": 0.002,
            "dino.momentum": 0.97,
        },
        "healthy",
    ),
    "dino photos temperature 0.05": Case(sharpened(0.05), "healthy", "photos"),
    "dino photos temperature 0.03": Case(sharpened(0.03), "healthy", "photos"),
    "dino no centring": Case({"dino.center_momentum": 1.0}, "complete collapse"),
    "dino no sharpening": Case(sharpened(0.1), "uniform collapse"),
    "dino momentum 0": Case({"dino.momentum": 0.0}, "dimensional collapse"),
    "dino lr × 1000": Case({"dino.optim.lr": 1.0}, "diverged"),
    "dino lr / 1000": Case({"dino.optim.lr": 1e-6}, "undertrained"),
}


def main() -> None:
    parser = Parser(prog="python -m benchmarks.studies.diagnose", description=__doc__)
    parser.add_argument(
        "--seeds", nargs="*", type=int, default=[], help="seeds to train (default: print the recorded runs)"
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--share", type=float, default=1.0, help="of the case's epochs to train (default: 1)")
    parser.add_argument("--photos", type=Path, help="the folder of images for the cases of recipe photos")
    given = parser.parse_args()
    if given.seeds:
        with workspace() as folder:
            if given.photos:
                (folder / "data/raw/photos").symlink_to(given.photos.resolve())
            for seed in given.seeds:
                for case in given.cases:
                    if given.photos or CASES[case].recipe != "photos":
                        train(folder, case, seed, given.share)
    print(markdown(list(table())))


def train(folder: Path, case: str, seed: int, share: float) -> None:
    """Train a case unless it is recorded. A run that stops with an error is recorded up to there."""
    name = case.split(maxsplit=1)[0]
    epochs = max(1, round(params(case).epochs * share))
    if (case, seed, epochs) in recorded():
        return
    write_params(folder, case)
    configure(folder, {f"{name}.epochs": epochs})
    subprocess.run([sys.executable, "-m", "pipelines.prepare"], cwd=folder, env=ENVIRONMENT, check=True)
    configure(folder, {"seed": seed})  # of the training; the split is that of seed 0
    done = subprocess.run([sys.executable, "-c", PROGRAM, name], cwd=folder, env=ENVIRONMENT, check=False)
    finished, unfinished = folder / "artifacts" / "methods" / name, folder / ".scratch/pretrain" / name
    record(case, seed, epochs, (unfinished if done.returncode else finished) / "history.jsonl")


def record(case: str, seed: int, epochs: int, history: Path) -> None:
    """Add the health checks of a history, to five digits."""
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
    """(case, seed, epochs) → the health checks of that training run."""
    found: dict[tuple[str, int, int], list[Row]] = {}
    for path in sorted(RECORDS.glob("*.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                run = row.pop("case"), int(row.pop("seed")), int(row.pop("epochs"))
                found.setdefault(run, []).append({key: float(value) for key, value in row.items()})
    return found


def table() -> Iterator[dict[str, Any]]:
    """One row per recorded training run: its last figures and the diagnosis."""
    for (case, seed, epochs), checks in recorded().items():
        figures = {key: f"{checks[-1][key]:.3g}" for key in SHOWN if key in checks[-1]}
        found = diagnose(case.split()[0], params(case), checks).name
        yield {"case": case, "seed": seed, "epochs": epochs} | dict.fromkeys(SHOWN, "") | figures | {"diagnosis": found}


@cache
def params(case: str) -> MethodParams:
    """The params of the method in this case."""
    with tempfile.TemporaryDirectory() as folder:
        write_params(Path(folder), case)
        return config.load(Path(folder, "params.yaml")).method(case.split(maxsplit=1)[0])


def write_params(folder: Path, case: str) -> None:
    """params.yaml of this case: its recipe with its changes."""
    shutil.copyfile(ROOT / f"recipes/{CASES[case].recipe}.yaml", folder / "params.yaml")
    configure(folder, CASES[case].changes)


if __name__ == "__main__":
    main()
