"""What a step of each training run costs here: a few are done, in as many processes as will run side by side."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np
import torch
import torch._dynamo  # which every optimiser needs: imported here once, and not in each forked process

from models.method import Baseline, Pretraining
from pipelines.engine import monitor
from pipelines.engine.loop import Training
from pipelines.engine.prefetch import Feed, Inputs, generator
from pipelines.estimation.trainings import Work
from pipelines.evaluation.supervised.training import Labelled
from pipelines.machine import cores, hardware
from pipelines.project import stage

FEW = 4  # images of the first steps, by which the size of the others is chosen
STEPS = 12  # that are timed, at most, after one that is not
STEP, SECONDS = 1.0, 0.3  # s that a timed step may take (or its batch is cut), and after which no other is begun
IN_ALL = 20.0  # s of all probes; what is left then is counted from those that were done


@dataclass(frozen=True)
class Cost:
    """Of one kind of training: seconds per image of a step, seconds to set one up, and bytes that its process takes.

    forward: seconds per image of the encoder in use; share: of a processor that the probe got, less than 1 where other
    programs want it, too.
    """

    image: float
    setup: float
    memory: float
    forward: float
    share: float = 1.0


def costs(works: Sequence[Work], data: Labelled) -> dict[Work, Cost]:
    """What each training run costs here, not compiled. On a CPU each probe runs in a forked process of its own.

    This process must not have used more than one thread of torch's: in a fork the others are missing.
    """
    alike = {(work.params, work.section, work.backbone): work for work in works}  # equal work is measured once
    some, ends = list(alike.values()), time.monotonic() + IN_ALL
    gpu = data.device.type == "cuda"

    def probe(work: Work) -> Cost | None:
        if work is not some[0] and time.monotonic() > ends:
            return None
        return cost(work, data) if gpu else forked(partial(cost, work, data))

    with ThreadPoolExecutor(1 if gpu else side()) as pool:
        found = dict(zip(alike, pool.map(probe, some), strict=True))
    known = {work: found[work.params, work.section, work.backbone] for work in works}
    return completed({work: cost for work, cost in known.items() if cost}, works, data)


def side() -> int:
    """Probes at the same time on a CPU: of the stages that run side by side, as many as have cores of their own."""
    return max(1, min(cores.side_by_side(), cores.count() // cores.threads()))


def forked(work: Callable[[], Cost]) -> Cost:
    """Do this in a forked process with the threads of a stage. It ends with this thread; Ctrl-C concerns its parent."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stage.die_with_parent()
        torch.set_num_threads(cores.threads())
        try:
            sender.send(work())
        except Exception as error:  # it is raised in the parent
            sender.send(error)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        found = MemoryError("a probe of a training run was killed")
    process.join()
    if isinstance(found, BaseException):
        raise found
    return found  # type: ignore[no-any-return]


def completed(found: Mapping[Work, Cost], works: Sequence[Work], data: Labelled) -> dict[Work, Cost]:
    """The same for all: those that were not done get the seconds per operation of the slowest that was."""
    if len(found) == len(works):
        return dict(found)
    slowest = max(of.image / work.flops(data.size) for work, of in found.items())
    largest = max(of.memory for of in found.values())
    return {work: found.get(work) or counted(slowest * work.flops(data.size), largest) for work in works}


def counted(image: float, memory: float) -> Cost:
    """Of a training run that was not measured: one forward pass is about a third of a step."""
    return Cost(image, 0.0, memory, image / 3)


def cost(work: Work, data: Labelled) -> Cost:
    """Do a few steps of a training run on images of the train split."""
    began, wall, before = clock(data.device), time.monotonic(), memory(data.device)
    method, params, how = work.build(), replace(work.params, accumulate=1), replace(data.how, compile=False)
    setting = hardware.choose(how, method, params, data.size, 1, data.device)
    training = Training(method, params, how, setting, data.device)
    method.train()
    setup = clock(data.device) - began
    few = whole(min(FEW, work.at_once), work)
    each = timed(training, work, data, few, 0)
    if few * each < STEP:  # or the first step says enough
        each = timed(training, work, data, few, 1)
    n = max(few, whole(min(work.at_once, len(data.train), int(STEP / each)), work))
    if n > few:
        timed(training, work, data, n, 0)
        each = timed(training, work, data, n, STEPS)
    grown = (memory(data.device) - before) * max(1.0, work.at_once / n)
    own = 0.0 if data.device.type == "cuda" else before
    share = min(1.0, (clock(data.device) - began) / (time.monotonic() - wall))
    return Cost(
        each, setup, grown + own, forward(method, data, n) if isinstance(method, Pretraining) else each / 3, share
    )


@torch.inference_mode()
def forward(method: Pretraining, data: Labelled, n: int) -> float:
    """Seconds per image of the encoder in use."""
    encoder, images = method.encoder.eval(), torch.from_numpy(data.prepared.images(data.train[:n])).to(data.device)
    for _ in range(2):
        began = clock(data.device)
        encoder(images).sum().item()
    return (clock(data.device) - began) / n


def clock(device: torch.device) -> float:
    """Seconds: of a stage of one thread those that the processors worked for it, however many others want them."""
    return time.process_time() if device.type == "cpu" and cores.threads() == 1 else time.monotonic()


def whole(n: int, work: Work) -> int:
    """About n images that can be a part of a step."""
    return max(2, work.group, n // work.group * work.group)


def timed(training: Training, work: Work, data: Labelled, n: int, steps: int) -> float:
    """Seconds per image of steps on n images: of so many after a first, fewer where they take long."""
    method = training.method

    def inputs(step: int) -> Inputs:
        torch.set_num_threads(cores.threads())  # of the feed's thread; without it, it would take every processor
        draws = method.draw(n, data.size, data.size, generator(0, step))
        if isinstance(method, Baseline):
            draws[-1][: n // work.group] = 0  # a label
        return Inputs(torch.from_numpy(data.prepared.images(data.train[np.arange(n) % len(data.train)])), draws)

    feed, each = Feed(inputs, data.device), range(1 + steps)
    ahead = data.device.type == "cuda"  # on a CPU a batch that is fetched ahead would count for the step before
    batches = feed.steps(0, 1 + steps) if ahead else chain.from_iterable(feed.steps(i, i + 1) for i in each)
    began, wall, done = clock(data.device), time.monotonic(), 0
    for done, batch in enumerate(batches):
        training.step(batch, 0.5)[1].item()
        if done == 0 and steps:
            began, wall = clock(data.device), time.monotonic()
        elif time.monotonic() - wall > SECONDS:
            break
    return (clock(data.device) - began) / max(1, done) / n


def memory(device: torch.device) -> float:
    """The most that this process has held so far, bytes: of the GPU's memory, or of the machine's."""
    return 2.0**20 * monitor.memory(device)
