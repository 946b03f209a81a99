"""The processes of a server that is watched from outside: which died, and whether their memory stays flat."""

import time
from contextlib import suppress
from threading import Event, Thread
from typing import Any

import numpy as np
import psutil

from serving import ServingError
from serving.host.runtime import Runtime
from serving.torchserve.management import Management


def workers(runtime: Runtime, name: str, version: str | None = None) -> dict[tuple[str, int], int]:
    """(version, number) → the process that serves it, of one version or of all."""
    found = Management(runtime).versions(name).items()
    return {
        (label, i): int(w["pid"])
        for label, of in found
        for i, w in enumerate(of["workers"])
        if version in (None, label)
    }


class Observer(Thread):
    """Every second: which process serves what, and how much resident memory it has, in MiB.

    The memory is that of the front end and of the workers of the version that is `lasting`: others come and go.
    """

    def __init__(self, runtime: Runtime, name: str, lasting: str) -> None:
        super().__init__()
        self.runtime, self.name, self.ended = runtime, name, Event()
        self.lasting = ("front end", *(f"worker {i} of version {lasting}" for i in range(2)))
        self.deaths: list[str] = []
        self.memory: dict[str, list[tuple[float, float]]] = {}  # (minutes, MiB)

    def run(self) -> None:
        begin, before = time.monotonic(), dict[str, int]()
        while not self.ended.wait(1):
            with suppress(ServingError, psutil.NoSuchProcess):  # in the middle of a change; the next second will do
                of = workers(self.runtime, self.name).items()
                now = {f"worker {i} of version {version}": pid for (version, i), pid in of}
                now["front end"] = java(self.runtime)
                # A version that is deployed again was gone for longer than a second: another process is a death.
                self.deaths += [who for who in before.keys() & now.keys() if 0 < before[who] != now[who]]
                before = now
                for who in self.lasting:
                    mib = psutil.Process(now[who]).memory_info().rss / 2**20
                    self.memory.setdefault(who, []).append(((time.monotonic() - begin) / 60, mib))

    def table(self) -> list[dict[str, Any]]:
        return [{"process": who} | growth(np.array(samples)) for who, samples in self.memory.items()]


def java(runtime: Runtime) -> int:
    """The process of TorchServe's Java. Raises ServingError while there is none."""
    for child in psutil.Process(runtime.pid).children():
        if "java" in child.name():
            return child.pid
    raise ServingError("There is no front end.")


def growth(samples: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> dict[str, float]:
    """Of (n, 2) minutes and MiB: medians of the second and the last fifth, and the slope of a line from there on."""
    fifth = len(samples) // 5
    first, last = (float(np.median(part[:, 1])) for part in (samples[fifth : 2 * fifth], samples[-fifth:]))
    slope = float(np.polyfit(samples[fifth:, 0], samples[fifth:, 1], 1)[0])
    return {
        "MiB, second fifth": first,
        "MiB, last fifth": last,
        "MiB/min": slope,
        "growth, %": 100 * (last / first - 1),
    }
