"""The bytes on the disk that a run adds: counted, as the files are written."""

from dataclasses import dataclass

import torch

from data.shards import SHARD_BYTES, Prepared
from models.method import Pretraining
from pipelines.engine import monitor
from pipelines.estimation.trainings import Work
from pipelines.machine import footprint
from pipelines.project.config import Config
from pipelines.saving.checkpoints import KEPT

HEADER = 128  # bytes of a .npy file before its numbers
ROW = 100  # bytes of an image in index.csv, beside its path: SHA-256, split, label, two sides
HISTORY = 400  # bytes of a row of history.jsonl
COPIES = 2  # of what a stage makes: in its place and in DVC's cache
FIXED = 12e6  # the stores of MLflow and Prefect, the report and its pictures, the code in each archive


@dataclass(frozen=True)
class Disk:
    """Bytes by what they are for."""

    prepared: float  # data/prepared and its copy in DVC's cache
    checkpoints: float  # of unfinished training runs, in .scratch: gone when they are done
    artifacts: float  # encoders, features, histories and archives, in DVC's cache and in MLflow, too

    @property
    def run(self) -> float:
        """What a run adds after its images are prepared, at the most."""
        return self.checkpoints + self.artifacts


def disk(c: Config, works: list[Work], steps: dict[str, int], prepared: Prepared, side: int) -> Disk:
    """Of a run with this work. steps: of each pretraining; side: training runs at the same time."""
    states, artifacts, images = [], FIXED, prepared.manifest.images
    for work in works:
        if work.stage != f"pretrain@{work.who}":
            continue
        with torch.device("meta"):
            method = work.build()
        assert isinstance(method, Pretraining)
        moments = footprint.MOMENTS[work.params.optim.name]
        trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
        states.append(KEPT * 4.0 * (weights(method) + moments * trained))
        encoder, dim = weights(method.encoder), method.encoder.dim
        kept = sum(x.numel() for key, x in method.state_dict().items() if key.startswith(method.KEPT))
        history = HISTORY * (steps[work.stage] // c.pretrain.log_every + monitor.CHECKS)
        checkpoint = 4 * (c.seeds * encoder + kept)
        features = images * (4 * dim + 8)
        served = 4 * encoder * 2  # ONNX, and the archive, which does not shrink it much
        artifacts += COPIES * (checkpoint + features + served + history) + 2 * 4 * encoder + history  # MLflow's
    unfinished = sum(sorted(states, reverse=True)[: max(1, side)])
    return Disk(COPIES * folder(prepared), unfinished, artifacts)


def folder(prepared: Prepared) -> float:
    """Bytes of a prepared folder: its shards, and about as many as its tables have."""
    images, size = prepared.manifest.images, prepared.bytes_per_image
    return float(shards(images, size) + images * ROW)


def shards(images: int, size: int) -> int:
    """Bytes of the shards of so many images of this size, bytes each."""
    return images * size + HEADER * -(-images // max(1, SHARD_BYTES // size))


def weights(module: torch.nn.Module) -> int:
    """Numbers that a checkpoint of it holds."""
    return sum(x.numel() for x in module.state_dict().values())
