"""Batches and what is drawn for them, ahead of the step that needs them: a pure function of (seed, step)."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.batches import Batches
from models import parallel
from models.methods import Method

AHEAD = 3  # batches
RESIDENT = 0.25  # of a GPU's free memory that a data set may take


@dataclass
class Inputs:
    """Of this rank, on the device: uint8 images (b, 3, H, W), and what is drawn for each."""

    images: Tensor
    draws: list[Tensor]

    def parts(self, n: int) -> Iterator[tuple[Tensor, list[Tensor], bool]]:
        """Images and draws in n equal parts; with each, whether it is the last."""
        columns = [x.chunk(n) for x in (self.images, *self.draws)]
        for i, (images, *draws) in enumerate(zip(*columns, strict=True), 1):
            yield images, draws, i == n


def generator(seed: int, step: int) -> torch.Generator:
    """The randomness of a step."""
    word = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word >> np.uint64(1)))


class Feed:
    """A thread reads, draws, and on a GPU sends by a stream of its own from pinned memory.

    A data set that is small beside the GPU's free memory lies there whole, and only places in it are sent.
    """

    def __init__(self, batches: Batches, method: Method, device: torch.device):
        self.batches, self.method, self.device = batches, method, device
        self.size = batches.prepared.manifest.preprocess.size
        self.gpu = device.type == "cuda"
        self.whole: Tensor | None = None
        if self.gpu:
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            if batches.bytes < RESIDENT * torch.cuda.mem_get_info(device)[0]:
                self.whole = batches.whole().to(device)

    def steps(self, first: int, last: int) -> Iterator[Inputs]:
        chosen = (
            (torch.cuda.set_device, (self.device,)) if self.gpu else (None, ())
        )  # a thread begins with the first GPU
        with ThreadPoolExecutor(1, "feed", *chosen) as pool:
            ahead = deque(pool.submit(self.fetch, step) for step in range(first, min(first + AHEAD, last)))
            try:
                for step in range(first, last):
                    inputs, ready = ahead.popleft().result()
                    if step + AHEAD < last:
                        ahead.append(pool.submit(self.fetch, step + AHEAD))
                    yield self.received(inputs, ready)
            finally:
                pool.shutdown(cancel_futures=True)

    def fetch(self, step: int) -> tuple[Inputs, "torch.cuda.Event | None"]:
        """In the thread: this rank's part of the global batch of a step."""
        world, rank = parallel.world(), parallel.rank()
        epoch, batch = divmod(step, len(self.batches))
        drawn = self.method.draw(self.batches.batch_size, self.size, self.size, generator(self.batches.seed, step))
        draws = [d.chunk(world)[rank] for d in drawn]
        if self.whole is not None:
            images = torch.from_numpy(self.batches.places(epoch, batch, rank, world))
        else:
            n = self.batches.batch_size // world
            images = torch.empty(n, 3, self.size, self.size, dtype=torch.uint8, pin_memory=self.gpu)
            self.batches.read(epoch, batch, rank, world, out=images)
        if not self.gpu:
            return Inputs(images, draws), None
        with torch.cuda.stream(self.stream):
            sent = [x.pin_memory().to(self.device, non_blocking=True) for x in (images, *draws)]
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
        return Inputs(sent[0], sent[1:]), ready

    def received(self, inputs: Inputs, ready: "torch.cuda.Event | None") -> Inputs:
        """The step's stream waits for the copy, the host does not."""
        if ready is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(ready)
            for x in (inputs.images, *inputs.draws):
                x.record_stream(stream)
        if self.whole is not None:
            inputs.images = self.whole[inputs.images]
        return inputs
