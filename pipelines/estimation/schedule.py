"""When each stage would run: the flow's slots, the graph, and processors that running stages share."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

EPSILON = 1e-9
Pace = Callable[[str, Collection[str]], float]  # of a stage beside others: 1 is as fast as alone


@dataclass(frozen=True)
class Span:
    """When a stage begins and ends, in seconds."""

    begins: float
    ends: float

    @property
    def seconds(self) -> float:
        """How long it runs."""
        return self.ends - self.begins


def schedule(
    seconds: Mapping[str, float], upstream: Mapping[str, Collection[str]], slots: int, pace: Pace
) -> dict[str, Span]:
    """Stage → when it runs, if the longest chain goes first. seconds: of each stage alone; others are done already."""
    chains = remaining(seconds, upstream)
    left, begun, spans, now = dict(seconds), dict[str, float](), dict[str, Span](), 0.0
    while len(spans) < len(seconds):
        ready = [
            name
            for name in seconds
            if name not in begun and all(other in spans for other in upstream[name] if other in seconds)
        ]
        for name in sorted(ready, key=chains.__getitem__, reverse=True)[: slots - (len(begun) - len(spans))]:
            begun[name] = now
        running = [name for name in begun if name not in spans]
        paces = {name: pace(name, running) for name in running}
        step = min(left[name] / paces[name] for name in running)
        now += step
        for name in running:
            left[name] -= step * paces[name]
            if left[name] <= EPSILON * (1 + seconds[name]):
                spans[name] = Span(begun[name], now)
    return spans


def remaining(seconds: Mapping[str, float], upstream: Mapping[str, Collection[str]]) -> dict[str, float]:
    """Stage → seconds of the longest chain that begins with it."""
    found: dict[str, float] = {}

    def of(name: str) -> float:
        if name not in found:
            after = [other for other in seconds if name in upstream[other]]
            found[name] = seconds[name] + max(map(of, after), default=0.0)
        return found[name]

    for name in seconds:
        of(name)
    return found


def total(spans: Mapping[str, Span]) -> float:
    """Seconds until the last stage has ended."""
    return max((span.ends for span in spans.values()), default=0.0)


def highest(spans: Mapping[str, Span], amounts: Mapping[str, float]) -> float:
    """The most that stages which run at the same time have together."""
    return max(
        (
            sum(amounts[name] for name, span in spans.items() if span.begins <= moment.begins < span.ends)
            for moment in spans.values()
        ),
        default=0.0,
    )


def sharing(cores: float, others: float = 0.0) -> Pace:
    """Stages of one thread on so many processors, which other programs want, too: as many as `others` such stages.

    Where a stage has more threads, a processor here is as many as they need.
    """
    return lambda name, running: min(1.0, cores / (len(running) + others))


def on_gpus(gpus: float, trains: Sequence[str], cores: float) -> Pace:
    """Training stages, by the start of their names, share so many GPUs (or sets of them); all else the processors."""

    def pace(name: str, running: Collection[str]) -> float:
        training = name.startswith(tuple(trains))
        alike = [other for other in running if other.startswith(tuple(trains)) == training]
        return min(1.0, (gpus if training else cores) / len(alike))

    return pace


def apportioned(seconds: Mapping[str, float], whole: float, kinds: Sequence[str]) -> dict[str, float]:
    """The wall time shared out by the work of each kind of stage; the stages of no kind come under ``."""
    found = dict.fromkeys([*kinds, ""], 0.0)
    for name, of in seconds.items():
        kind = name.partition("@")[0]
        found[kind if kind in found else ""] += of
    every = sum(found.values()) or 1.0
    return {kind: whole * of / every for kind, of in found.items() if of}
