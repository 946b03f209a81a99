"""`python -m benchmarks.speed.gpu --data FOLDER`: run all benchmarks that need a GPU, in one resumable command.

Each part writes OUT/PART.json when it is done and is skipped later (to repeat it, remove the file). With --minutes the
command ends in time: a training run then saves a checkpoint, from which the next call resumes (exit code 75 means that
something is left). FOLDER holds cifar10-train.zip and cifar10-test.zip, or their contents. --smoke tries every branch
that only a GPU takes and measures nothing: run it first. Training runs are in .scratch/gpu. --tiny runs everything in
miniature, on any machine.
"""

import gc
import importlib.util
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.speed import loop, masking, smoke, steps, timing
from data.decoding.decode import Preprocess
from data.prepare import prepare
from data.shards import Prepared
from models import start
from models.encoders.weights import restore
from models.evaluation import probe
from pipelines.evaluation.features import images
from pipelines.evaluation.probe_protocol import accuracy
from pipelines.machine import gpus
from pipelines.machine.flops import flops
from pipelines.project import config
from pipelines.project.stage import TRY_AGAIN
from serving.host.command import Parser

Figures = dict[str, Any]
LEFT = 30.0  # s of the time that a part needs to save and to write
HALF_HOUR = 28 * 60.0  # s of steps
WHOLE = {"variants": 180.0, "masking": 180.0, "lightly": 120.0}  # s that a part wants that cannot be taken up again


class OutOfTime(Exception):
    """The next call resumes the part."""


@dataclass
class Bench:
    """One call of the command."""

    data: Path | None
    out: Path
    work: Path
    tiny: bool
    deadline: float = float("inf")
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def left(self) -> float:
        return self.deadline - time.monotonic() - (0.0 if self.tiny else LEFT)

    def known(self, part: str) -> Figures:
        """The figures of a part, which is done first where it is not."""
        path = self.out / f"{part}.json"
        if not path.exists():
            if self.left() <= (0.0 if self.tiny else WHOLE.get(part, 0.0)):
                raise OutOfTime
            print(f"{part} …", file=sys.stderr, flush=True)
            begin = time.monotonic()
            figures = PARTS[part](self)
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # the next part may be a process of its own
            figures |= {"machine": timing.machine(self.device), "torch": torch.__version__, "tiny": self.tiny}
            print(f"{part}: done in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
            self.out.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".writing")
            temporary.write_text(json.dumps(figures, indent=1) + "\n")
            temporary.rename(path)
        found: Figures = json.loads(path.read_text())
        return found

    def raw(self) -> Path:
        """`train|test/class/image`: CIFAR-10; the digits in miniature."""
        folder = self.work / "raw"
        if self.tiny:
            if not folder.exists():
                from PIL import Image  # noqa: PLC0415
                from sklearn.datasets import load_digits  # noqa: PLC0415

                for number, (image, label) in enumerate(zip(*load_digits(return_X_y=True), strict=True)):
                    path = folder / ("test" if number % 4 == 0 else "train") / str(label) / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if number < 200:
                        Image.fromarray((image.reshape(8, 8) * 15).astype("uint8")).save(path)
            return folder
        if self.data is None:
            sys.exit("Option --data is missing. Name the folder that holds cifar10-train.zip and cifar10-test.zip.")
        archives = [self.data / f"cifar10-{split}.zip" for split in ("train", "test")]
        if not all(archive.exists() for archive in archives):
            return self.data
        if not folder.exists():
            building = self.work / ".raw"
            for archive in archives:
                with zipfile.ZipFile(archive) as packed:
                    packed.extractall(building)
            building.rename(folder)
        return folder

    def cifar10(self) -> Path:
        """All 50,000 train images prepared, none kept as val."""
        out = self.work / "cifar10"
        if not (out / "manifest.json").exists():
            prepare(
                self.raw(), out, name="cifar10", preprocess=Preprocess(16 if self.tiny else 32), val=0.0, test=0.2,
                max_bad_fraction=0.0, labels=True, seed=0, workers=1 if self.tiny else None,
            )  # fmt: skip
        return out

    def noise(self) -> Path:
        out = self.work / "noise"
        loop.synthetic(out, *((64, 16) if self.tiny else (8192, 224)))
        return out

    def train(self, part: str, method: str, recipe: str, changes: Figures, prepared: Path, resident: bool) -> Path:
        """The folder of a finished training run of the real loop."""
        folder = self.work / part
        small = {f"{method}.batch_size": 32, f"{method}.epochs": 1, "pretrain.log_every": 1, "pretrain.compile": False}
        loop.project(folder, "digits" if self.tiny else recipe, small if self.tiny else changes, prepared)
        seconds = None if self.deadline == float("inf") else max(0.0, self.left())
        if not loop.train(folder, method, seconds, threads=int(self.tiny), resident=resident):
            raise OutOfTime
        return folder

    def speed(self, part: str, method: str, recipe: str, changes: Figures, prepared: Path, resident: bool) -> Figures:
        """images/s, input wait and memory of the real loop, beside the peak."""
        everywhere = {"pretrain.compile": True, "pretrain.checkpoint_minutes": 60.0, "pretrain.processes": 1}
        folder = self.train(part, method, recipe, everywhere | changes, prepared, resident)
        found = loop.figures(folder, method)
        c, m = config.load(folder / "params.yaml"), Prepared(prepared).manifest
        size = m.preprocess.size
        built = start.method(method, c.method(method), size, m.mean, m.std, 0)
        found["GFLOP an image"] = flops(built, size) / 1e9
        found["MFU, %"] = 100 * found["GFLOP an image"] * found["images/s"] / self.known("peak")["bf16, GFLOP/s"]
        return found

    def curve(self, part: str, method: str, epochs: int, changes: Figures) -> Figures:
        """A complete training run on CIFAR-10, and the accuracy of its frozen features on the 10,000 test images."""
        prepared = self.cifar10()
        changes = {f"{method}.epochs": epochs, "pretrain.compile": True} | changes
        folder = self.train(part, method, "cifar10", changes, prepared, resident=True)
        return loop.figures(folder, method) | {"epochs": epochs} | judge(folder, method, Prepared(prepared))


def judge(folder: Path, method: str, prepared: Prepared) -> Figures:
    """Top-1 in percent on test, all labels: linear probe and kNN, as the probe stage does them."""
    checkpoint = torch.load(folder / "artifacts" / "methods" / method / "checkpoint.pt", weights_only=True)
    p = config.load(folder / "params.yaml").probe
    with gpus.device() as device:
        encoder = restore(checkpoint["spec"], checkpoint["weights"])
        x = {s: probe.extract(encoder, images(prepared, s), device) for s in ("train", "test")}
    y = {s: prepared.labels(prepared.rows(s)) for s in x}
    votes = probe.knn(x["train"], y["train"], x["test"], p.neighbours, p.temperature)
    train, test = probe.standardize(x["train"], x["test"])
    (prediction,), _ = probe.linear_probe(train, y["train"], [test], p.C)
    return {"linear, %": accuracy(prediction, y["test"]), "kNN, %": accuracy(votes, y["test"])}


def peak(b: Bench) -> Figures:
    kinds = {"bf16": torch.bfloat16, "fp32": torch.float32}
    n = 128 if b.tiny else None
    return {f"{name}, GFLOP/s": timing.peak(dtype, b.device, n) / 1e9 for name, dtype in kinds.items()}


def variants(b: Bench) -> Figures:
    """What each thing that the engine does brings: SimCLR's ResNet-18 on CIFAR-10."""
    case = next(case for case in steps.cases() if case.name == ("digits simclr" if b.tiny else "cifar10 simclr"))
    case = replace(case, params=replace(case.params, batch_size=8 if b.tiny else 512))
    peaks = {name: 1e9 * b.known("peak")[f"{name}, GFLOP/s"] for name in ("bf16", "fp32")}
    return {"rows": steps.measure(case, b.device, 1 if b.tiny else timing.ROUNDS, not b.tiny, peaks)}


def masks(b: Bench) -> Figures:
    """MAE beside the variant with mask tokens in the encoder."""
    return {"rows": masking.run(b.device, 1 if b.tiny else timing.ROUNDS, large=not b.tiny, compiled=not b.tiny)}


def simclr(b: Bench) -> Figures:
    changes = {"simclr.epochs": 20}
    return b.speed("simclr", "simclr", "cifar10", changes, b.cifar10(), resident=True)


def lightly(b: Bench) -> Figures:
    """lightly's own script, its stem and ours, beside our loop; put its wheels on PYTHONPATH where it is absent."""
    if importlib.util.find_spec("lightly") is None:
        return {"absent": "lightly is not installed here"}
    command = [
        sys.executable,
        "-m",
        "benchmarks.speed.lightly_script",
        str(b.raw()),
        "--seconds",
        "1" if b.tiny else "40",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"absent": f"lightly does not run here: {done.stderr.splitlines()[-1:]}"}
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    ours = b.known("simclr")["images/s"]
    return found | {f"ours over {name}": ours / rate for name, rate in found.items()}


def mae(b: Bench) -> Figures:
    changes = {"mae.batch_size": 512, "mae.epochs": 8}
    return b.speed("mae", "mae", "imagenet-vit-base", changes, b.noise(), resident=False)


def dino(b: Bench) -> Figures:
    changes = {"dino.batch_size": 256, "dino.epochs": 4}
    return b.speed("dino", "dino", "imagenet-vit-small", changes, b.noise(), resident=False)


def anchor(b: Bench) -> Figures:
    """A public anchor: ViT-S/16, two views of 224 px, batch 256, GPU augmentation: 871 images/s on one H200."""
    changes = {"simclr.batch_size": 256, "simclr.epochs": 4}
    return b.speed("anchor", "simclr", "imagenet-vit-small", changes, b.noise(), resident=False)


def simclr_200(b: Bench) -> Figures:
    return b.curve("simclr-200", "simclr", 200, {"simclr.optim.warmup": 0.05})


def simclr_long(b: Bench) -> Figures:
    """As many epochs as half an hour holds at the speed that was measured, the published 1,000 at the most."""
    epochs = int(min(1000, max(1, HALF_HOUR * b.known("simclr")["images/s"] / 50_000)))
    return b.curve("simclr-long", "simclr", epochs, {"simclr.optim.warmup": 10 / max(epochs, 11)})


def dino_200(b: Bench) -> Figures:
    """The recipe's warm-ups in epochs: 10, one, 50."""
    changes = {"dino.optim.warmup": 0.05, "dino.freeze_last_layer": 0.005, "dino.warmup_teacher": 0.25}
    return b.curve("dino-200", "dino", 200, changes)


def mae_200(b: Bench) -> Figures:
    return b.curve("mae-200", "mae", 200, {"mae.optim.warmup": 0.05})


PARTS: dict[str, Callable[[Bench], Figures]] = {
    "peak": peak, "variants": variants, "simclr": simclr, "lightly": lightly, "mae": mae, "dino": dino,
    "anchor": anchor,
    "masking": masks, "simclr-200": simclr_200, "dino-200": dino_200, "mae-200": mae_200, "simclr-long": simclr_long,
}  # fmt: skip


def main() -> None:
    parser = Parser(prog="python -m benchmarks.speed.gpu", description=__doc__)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="run only this part; can be repeated")
    parser.add_argument("--data", type=Path, help="CIFAR-10: the two archives, or train/ and test/")
    parser.add_argument("--minutes", type=float, help="end within so many minutes")
    parser.add_argument("--out", type=Path, default=Path(".scratch/gpu/results"), help="where the figures go, as JSON")
    parser.add_argument("--work", type=Path, default=Path(".scratch/gpu"), help="where images and checkpoints lie")
    parser.add_argument("--tiny", action="store_true", help="everything in miniature")
    parser.add_argument("--smoke", action="store_true", help="try every branch that only a GPU takes, and exit")
    parser.add_argument("--table", action="store_true", help="print the figures so far, and exit")
    given = parser.parse_args()
    begin = time.monotonic()
    if not given.tiny and not given.table and not torch.cuda.is_available():
        sys.exit("This machine has no GPU that torch can use. To run everything in miniature, add --tiny.")
    if given.tiny:
        torch.set_num_threads(1)
    if given.smoke:
        smoke.run(given.work, torch.device("cuda" if torch.cuda.is_available() else "cpu"), given.tiny)
        return
    b = Bench(given.data, given.out, given.work, given.tiny)
    b.deadline = float("inf") if given.minutes is None else begin + 60 * given.minutes
    unfinished = []
    for part in [] if given.table else given.part or PARTS:
        try:
            b.known(part)
        except OutOfTime:
            unfinished.append(part)
    paths = {part: b.out / f"{part}.json" for part in PARTS}
    print(report.gpu_table({part: json.loads(path.read_text()) for part, path in paths.items() if path.exists()}))
    if unfinished:
        print(f"\nNot finished: {', '.join(unfinished)}. Run the same command to resume.", file=sys.stderr)
        sys.exit(TRY_AGAIN)


if __name__ == "__main__":
    main()
