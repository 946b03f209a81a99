"""Figures of the steps, read after they have arrived on the host, so that the device never waits."""

from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from pipelines.project.history import Row


class Meter:
    """Rows of the history: loss and norm of a step, and since the row before images_per_second and input_wait.

    input_wait: percentage of the time in which the device had no input. `write` gets a row when the next one is due,
    because its figures have arrived by then.
    """

    def __init__(self, device: torch.device, batch_size: int, write: Callable[[Row], None]):
        self.device, self.batch_size, self.write = device, batch_size, write
        self.pending: deque[Pending] = deque()
        self.waits: list[tuple[Any, Any]] = []  # end of a step, arrival of the next one's input
        self.ended = moment(device)

    def begin(self) -> None:
        """Call when the input of a step is there."""
        self.waits.append((self.ended, moment(self.device)))

    def end(self) -> None:
        """Call when the whole step is queued on the device."""
        self.ended = moment(self.device)

    def row(self, known: Row, figures: dict[str, Tensor]) -> None:
        """Queue a row (each figure is one number), and write the earlier ones."""
        self.flush()
        self.pending.append(Pending(known, figures, len(self.waits) * self.batch_size, self.waits, self.ended))
        self.waits = []

    def flush(self) -> None:
        """Write the pending rows."""
        while self.pending:
            self.write(self.pending.popleft().row())


class Pending:
    """A row whose figures are on their way to the host."""

    def __init__(
        self, known: Row, figures: dict[str, Tensor], images: int, waits: list[tuple[Any, Any]], ended: Any
    ) -> None:
        self.known, self.names, self.images, self.waits, self.ended = known, list(figures), images, waits, ended
        packed = torch.stack([t.detach().double() for t in figures.values()])
        self.values = packed.to("cpu", non_blocking=True)
        self.arrived = moment(packed.device)

    def row(self) -> Row:
        if not isinstance(self.arrived, float):
            self.arrived.synchronize()
        seconds = max(1e-9, between(self.waits[0][0], self.ended))
        waited = sum(between(a, b) for a, b in self.waits)
        rates = {"images_per_second": self.images / seconds, "input_wait": 100 * waited / seconds}
        return self.known | dict(zip(self.names, self.values.tolist(), strict=True)) | rates


def moment(device: torch.device) -> Any:
    """The present moment, on the time line of the device."""
    if device.type != "cuda":
        return perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def between(a: Any, b: Any) -> float:
    """Seconds from one moment to another, both past."""
    return float(b - a if isinstance(a, float) else a.elapsed_time(b) / 1000)
