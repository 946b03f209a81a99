"""How far a long piece of work is: a bar on a terminal, plain lines elsewhere, which `read` takes apart again."""

import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TextIO

FIRST_LINE_S = 1.0
LINE_EVERY_S = float(os.environ.get("PROGRESS_LINE_EVERY_S", "10"))
STEADY_S = 5.0
AMOUNT = r"[\d,.]+(?: [KMG]B)?"
HEAD = re.compile(rf"\S.* (?P<done>{AMOUNT})(?:/(?P<total>{AMOUNT}))?(?: [a-z]+)?")


@dataclass(frozen=True)
class Reading:
    """What a progress line says. share: of the work that is done, 0 to 1, and 0 while the amount of work is unknown;
    left: the time left, as `0:42`, once known."""

    share: float
    left: str
    figures: str


def read(line: str) -> Reading | None:
    """A line that Progress wrote, or None for every other line."""
    head, *rest = line.split(" · ")
    found = HEAD.fullmatch(head)
    if not found or not (found["total"] or any(part.endswith("/s") for part in rest)):
        return None
    share = _number(found["done"]) / max(1.0, _number(found["total"])) if found["total"] else 0.0
    left = [part.removesuffix(" left") for part in rest if part.endswith(" left")]
    figures = [part for part in rest if not re.search(r"/s$|^[\d:]+ (left|taken)$", part)]
    return Reading(min(1.0, share), "".join(left), " · ".join(figures))


class Progress:
    """Context manager that shows count, rate and time left on `stream` (standard error when None).

    total: how many in all, None when unknown; done: how many an earlier run had finished;
    unit: what is counted ("images"), where "bytes" is shown as KB, MB and GB.
    Off a terminal, or without tqdm, a line after about 1 s, then every 10 s, and one at a successful close.
    """

    def __init__(
        self,
        total: int | None,
        label: str,
        unit: str,
        done: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.label, self.unit, self.done = total, label, unit, done
        self._stream = sys.stderr if stream is None else stream
        self._clock, self._figures = clock, dict[str, str]()
        self._first, self._start = done, clock()
        self._next_line = self._start + FIRST_LINE_S
        self._bar = self._open_bar() if self._stream.isatty() else None

    def _open_bar(self) -> Any:
        try:
            from tqdm import tqdm  # noqa: PLC0415 - only a terminal needs it
        except ImportError:
            return None
        size = self.unit == "bytes"
        return tqdm(
            total=self.total,
            desc=self.label,
            initial=self.done,
            file=self._stream,
            dynamic_ncols=True,
            unit="B" if size else f" {self.unit}",
            unit_scale=size,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            self._write_line(closing=True)

    def advance(self, n: int = 1, **figures: str) -> None:
        """Count n more; figures, such as loss="4.10", are shown from now on."""
        self.done += n
        self._figures |= figures
        if self._bar is not None:
            if figures:
                self._bar.set_postfix_str(self._figures_text(), refresh=False)
            self._bar.update(n)
        elif (now := self._clock()) >= self._next_line:
            self._next_line = now + LINE_EVERY_S
            self._write_line(closing=False)

    def _figures_text(self) -> str:
        return " · ".join(f"{name} {value}" for name, value in self._figures.items())

    def _amount(self, n: float) -> str:
        if self.unit == "bytes":
            scale, name = next((s for s in ((1e9, "GB"), (1e6, "MB")) if n >= s[0]), (1e3, "KB"))
            return f"{n / scale:,.1f} {name}"
        return f"{n:,.0f} {self.unit}" if n >= 10 or n == round(n) else f"{n:.2f} {self.unit}"

    def _is_steady(self, elapsed: float, total: int) -> bool:
        # At first start-up dominates, and a time left would be a wild guess.
        return elapsed >= STEADY_S or 100 * (self.done - self._first) >= total - self._first

    def _write_line(self, *, closing: bool) -> None:
        elapsed = self._clock() - self._start
        rate = (self.done - self._first) / elapsed if elapsed > 0 else 0.0
        count = self._amount(self.done)
        if self.total is not None:
            done = count if self.unit == "bytes" else f"{self.done:,}"
            count = f"{done}/{self._amount(self.total)}"
        parts = [f"{self.label} {count}"]
        if rate > 0:
            parts.append(f"{self._amount(rate)}/s")
        if closing:
            parts.append(f"{minutes(elapsed)} taken")
        elif rate > 0 and self.total is not None and self._is_steady(elapsed, self.total):
            parts.append(f"{minutes(max(0, self.total - self.done) / rate)} left")
        if self._figures:
            parts.append(self._figures_text())
        print(" · ".join(parts), file=self._stream, flush=True)


def _number(text: str) -> float:
    figure, _, unit = text.partition(" ")
    return float(figure.replace(",", "")) * {"": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit]


def minutes(seconds: float) -> str:
    """`0:42`, `1:02:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
