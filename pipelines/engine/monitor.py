"""Health checks of a training run: the same figures for every method, on the same held-out images, without labels.

Each process takes all of the images. A check leaves what is in training as it was, to the bit.
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
from models.views.augmentation import HEALTH_CHECK
from pipelines.machine import distributed
from pipelines.machine.hardware import Setting

IMAGES = 256  # at most
LEAST = 16  # images: with fewer, healthy runs would be taken for broken ones (docs/diagnosis.md)
CHECKS = 25  # per run, where `pretrain.watch` says nothing
SEED = 0  # of the images and views, the same for every run


class Watch:
    """Checks a method that trains, on images of the val split. With fewer than LEAST images it measures no features.

    epochs: between two checks; None: a 25th of the run. per_epoch: steps per epoch; steps: of the run.
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
        self.every = interval(epochs, per_epoch, steps)
        rows = np.random.default_rng(SEED).permutation(prepared.rows("val"))[:IMAGES]
        images = torch.from_numpy(prepared.images(np.sort(rows))).to(device)
        n, size = len(images), prepared.manifest.preprocess.size
        self.blind = n < LEAST
        if self.blind:
            return
        generator = torch.Generator().manual_seed(SEED)
        draws = [d.to(device) for d in method.draw(n, size, size, generator)]
        pair = [augmentation.draw(n, size, size, HEALTH_CHECK, generator).to(device) for _ in range(2)]
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            self.views = [setting.shape(v) for v in method.views(images, draws)]
            self.pair = [setting.shape(augmentation.augment(images, d, size, HEALTH_CHECK)) for d in pair]

    def due(self, step: int) -> bool:
        """Whether a check is due after this many steps. The first and the last step have one in any case."""
        return step % self.every == 0 or step in (1, self.steps)

    def check(self, progress: float) -> dict[str, Tensor]:
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


def interval(epochs: float | None, per_epoch: int, steps: int) -> int:
    """Steps between two checks: as many epochs, or a part of the run where None."""
    return max(1, round(steps / CHECKS if epochs is None else epochs * per_epoch))


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
