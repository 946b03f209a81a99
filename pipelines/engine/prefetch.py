"""Fetch batches and their random numbers before the step that needs them. Both depend on (seed, step) alone."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.batches import Batches
from models import parallel
from models.method import Method

AHEAD = 3  # batches
RESIDENT = 0.25  # of a GPU's free memory that a data set may take


@dataclass
class Inputs:
    """The inputs of this rank, on the device: uint8 images (b, 3, H, W), and the random numbers of each."""

    images: Tensor
    draws: list[Tensor]

    def parts(self, n: int) -> Iterator[tuple[Tensor, list[Tensor], bool]]:
        """Images and draws in n equal parts; with each, whether it is the last."""
        columns = [x.chunk(n) for x in (self.images, *self.draws)]
        for i, (images, *draws) in enumerate(zip(*columns, strict=True), 1):
            yield images, draws, i == n


def generator(seed: int, step: int) -> torch.Generator:
    """The random generator of a step."""
    word = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word >> np.uint64(1)))


class Feed:
    """Fetches batches in a thread. On a GPU it sends them from pinned memory in its own stream.

    fetch: step → this rank's part of its batch, on the CPU. whole: all images on the device, if they need little of its
    memory; then the images of a batch are indices into it.
    """

    def __init__(self, fetch: Callable[[int], Inputs], device: torch.device, whole: Tensor | None = None):
        self.fetch, self.device, self.whole = fetch, device, whole
        self.gpu = device.type == "cuda"
        if self.gpu:
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def steps(self, first: int, last: int) -> Iterator[Inputs]:
        chosen = (
            (torch.cuda.set_device, (self.device,)) if self.gpu else (None, ())
        )  # a new thread uses the first GPU otherwise
        with ThreadPoolExecutor(1, "feed", *chosen) as pool:
            ahead = deque(pool.submit(self.sent, step) for step in range(first, min(first + AHEAD, last)))
            try:
                for step in range(first, last):
                    inputs, ready = ahead.popleft().result()
                    if step + AHEAD < last:
                        ahead.append(pool.submit(self.sent, step + AHEAD))
                    yield self.received(inputs, ready)
            finally:
                pool.shutdown(cancel_futures=True)

    def sent(self, step: int) -> tuple[Inputs, "torch.cuda.Event | None"]:
        """In the thread: send a batch to the device; the event says when it is there."""
        inputs = self.fetch(step)
        if not self.gpu:
            return inputs, None
        with torch.cuda.stream(self.stream):
            images, *draws = (x.pin_memory().to(self.device, non_blocking=True) for x in (inputs.images, *inputs.draws))
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
        return Inputs(images, draws), ready

    def received(self, inputs: Inputs, ready: "torch.cuda.Event | None") -> Inputs:
        """Let the stream of the step wait for the copy. The host does not wait."""
        if ready is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(ready)
            for x in (inputs.images, *inputs.draws):
                x.record_stream(stream)
        if self.whole is not None:
            inputs.images = self.whole[inputs.images]
        return inputs


def pretraining(batches: Batches, method: Method, device: torch.device) -> Feed:
    """The feed of a pretraining run."""
    size, gpu = batches.prepared.manifest.preprocess.size, device.type == "cuda"
    fits = gpu and batches.bytes < RESIDENT * torch.cuda.mem_get_info(device)[0]

    def fetch(step: int) -> Inputs:
        world, rank = parallel.world(), parallel.rank()
        epoch, batch = divmod(step, len(batches))
        drawn = method.draw(batches.batch_size, size, size, generator(batches.seed, step))
        draws = [d.chunk(world)[rank] for d in drawn]
        if fits:
            return Inputs(torch.from_numpy(batches.places(epoch, batch, rank, world)), draws)
        n = batches.batch_size // world
        images = torch.empty(n, 3, size, size, dtype=torch.uint8, pin_memory=gpu)
        batches.read(epoch, batch, rank, world, out=images)
        return Inputs(images, draws)

    return Feed(fetch, device, batches.whole().to(device) if fits else None)
