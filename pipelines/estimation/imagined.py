"""Images that are not here: as many as a recipe's data set has, with random pixels, to count and to time steps."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.decoding.decode import Preprocess
from data.folders.folder import find
from data.shards import SHARD_BYTES, Manifest, Prepared
from data.splits import ORDER
from pipelines.project import stage
from pipelines.project.config import Config
from pipelines.project.stage import StageError

# Images of train (unlabelled ones apart) and of the data set's own test split; classes.
PUBLISHED = {
    "digits": (1797, 0, 0, 10),
    "digits-writers": (1797, 0, 0, 10),
    "cifar10": (50_000, 0, 10_000, 10),
    "stl10": (5_000, 100_000, 8_000, 10),
    "imagenette": (9_469, 0, 3_925, 10),
    "imagenet": (1_281_167, 0, 50_000, 1000),
}
GREY = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class Imagined(Prepared):
    """A prepared folder that exists in numbers only: every class has as many labels as the others."""

    def __init__(self, c: Config, labelled: int, unlabelled: int, test: int, classes: int) -> None:
        val = round(c.prepare.val * labelled)
        drawn = 0 if test else round(c.prepare.test * labelled)
        counts = {"train": labelled + unlabelled - val - drawn, "val": val, "test": test or drawn}
        self.folder, self.classes = stage.PREPARED, tuple(map(str, range(classes)))
        preprocess = Preprocess(c.prepare.size, c.prepare.filter)
        self.manifest = Manifest(
            c.dataset, sum(counts.values()), counts, self.classes, counts, 0, 0, 0, *GREY, preprocess, ""
        )
        self._splits = np.repeat([ORDER.index(split) for split in counts], [*counts.values()]).astype(np.uint8)
        self._labels = (np.arange(len(self._splits)) % max(1, classes)).astype(np.int32)
        self._labels[: unlabelled if classes else None] = -1

    @property
    def shard_rows(self) -> int:
        """Images per shard."""
        return max(1, SHARD_BYTES // self.bytes_per_image)

    def images(self, rows: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Random pixels."""
        size = self.manifest.preprocess.size
        made = np.random.default_rng(0).integers(0, 256, (len(rows), 3, size, size), np.uint8)
        if out is not None:
            out[:] = made
        return made if out is None else out


def prepared(c: Config, images: int | None) -> tuple[Prepared, str]:
    """The images of a configuration, and where their number is from."""
    if images is not None:
        classes = PUBLISHED.get(c.dataset, (0, 0, 0, 10))[-1]
        return Imagined(c, images, 0, 0, classes), "given"
    with_size = (c.dataset, c.prepare.size)
    if (stage.PREPARED / "manifest.json").exists():
        here = Prepared(stage.PREPARED)
        if (here.manifest.name, here.manifest.preprocess.size) == with_size:
            return here, f"as prepared in {stage.PREPARED}"
    if (raw := stage.RAW / c.dataset).is_dir() and c.dataset not in PUBLISHED:
        files = find(raw, c.prepare.labels).files
        labels = {file.label for file in files if file.label}
        return Imagined(c, len(files), 0, 0, len(labels)), f"counted in {raw}"
    if c.dataset in PUBLISHED:
        return Imagined(c, *PUBLISHED[c.dataset]), "as published"
    raise StageError(
        f"The folder {stage.RAW / c.dataset} is missing, so the number of images is not known. Give it: --images 10000."
    )


@dataclass(frozen=True)
class Machine:
    """What a recipe states: its GPUs, 0 for a CPU, and GB of memory of each."""

    gpus: int
    memory: int


def machine(text: str) -> Machine | None:
    """The machine of a recipe's line `# Machine:`."""
    stated = re.search(r"^# Machine: (\d+) × (\d+) GB(, a CPU)?", text, re.MULTILINE)
    return Machine(0 if stated[3] else int(stated[1]), int(stated[2])) if stated else None
