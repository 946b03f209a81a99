"""What can be seen of a training without labels: looks at the same held-out images, under the same names for all.

Each process looks at all of them; what is in training is left as it was, to the bit.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from data.shards import Prepared
from models import optim, signals
from models.method import Pretraining
from models.views import augmentation
from models.views.augmentation import LAW
from pipelines.machine import distributed
from pipelines.machine.hardware import Setting

IMAGES = 256  # at most
LEAST = 16  # images: of fewer, the figures of healthy trainings look ill (docs/diagnosis.md)
LOOKS = 25  # a run, where `pretrain.watch` says nothing
SEED = 0  # of the images and views, the same for every run


class Watch:
    """Looks at a method that trains, on images of the val split; where that has hardly any, it sees no features.

    epochs: between looks; None: a 25th of the run. per_epoch, steps: of an epoch, of the run.
    """

    def __init__(
        self,
        prepared: Prepared,
        method: Pretraining,
        setting: Setting,
        device: torch.device,
        epochs: float | None,
        per_epoch: int,
        steps: int,
    ):
        self.method, self.device, self.bf16, self.steps = method, device, setting.bf16, steps
        self.every = max(1, round(steps / LOOKS if epochs is None else epochs * per_epoch))
        rows = np.random.default_rng(SEED).permutation(prepared.rows("val"))[:IMAGES]
        images = torch.from_numpy(prepared.images(np.sort(rows))).to(device)
        n, size = len(images), prepared.manifest.preprocess.size
        self.blind = n < LEAST
        if self.blind:
            return
        generator = torch.Generator().manual_seed(SEED)
        draws = [d.to(device) for d in method.draw(n, size, size, generator)]
        pair = [augmentation.draw(n, size, size, LAW, generator).to(device) for _ in range(2)]
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            self.views = [setting.shape(v) for v in method.views(images, draws)]
            self.pair = [setting.shape(augmentation.augment(images, d, size, LAW)) for d in pair]

    def due(self, step: int) -> bool:
        """Whether to look after this many steps; after the first and the last in any case."""
        return step % self.every == 0 or step in (1, self.steps)

    def look(self, progress: float) -> dict[str, Tensor]:
        """Figures of one number each, by name; every rank must call it."""
        seen = {} if self.blind else self.see(progress)
        norm = optim.norm([p for p in self.method.parameters() if p.requires_grad])
        return seen | {"weight_norm": norm, "memory": torch.tensor(memory(self.device), device=self.device)}

    @torch.no_grad()
    def see(self, progress: float) -> dict[str, Tensor]:
        with evaluated(self.method), torch.compiler.set_stance("force_eager"):
            return distributed.within(self.method, lambda: self.figures(progress), self.device, self.bf16)

    def figures(self, progress: float) -> dict[str, Tensor]:
        a, b = self.method.encoder(torch.cat(self.pair)).chunk(2)
        return self.method.signals(self.views, progress) | signals.common(a, b)


@contextmanager
def evaluated(method: Pretraining) -> Iterator[None]:
    """In eval mode, so that no statistic is taken."""
    method.eval()
    try:
        yield
    finally:
        method.train()


def memory(device: torch.device) -> float:
    """The most that this process has held so far, MiB: of the GPU's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
