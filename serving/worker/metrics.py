"""A worker's counters for Prometheus. Their labels are model and version; no figure reveals an image.

Processes that start with PROMETHEUS_MULTIPROC_DIR set count into that folder, unless its disk is full. Packed beside
`encoder.py`.
"""

import os
from collections import Counter as Tally
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

import prometheus_client.values
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from serving.worker.drift import Floats, Sketch, Window

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
OF = ("model", "version")
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
REQUESTS = Counter("encoder_requests", "Requests that were answered, by status.", (*OF, "status"))
IMAGES = Counter("encoder_images", "Images, by the status each of them had.", (*OF, "status"))
BATCH = Histogram("encoder_batch_images", "Images that were run together.", OF, buckets=(1, 2, 4, 8, 16, 32, 64, 128))
DECODE = Histogram("encoder_decode_seconds", "Reading and decoding a batch.", OF, buckets=SECONDS)
INFERENCE = Histogram("encoder_inference_seconds", "Running the network on a batch.", OF, buckets=SECONDS)
DRIFT = Gauge(
    "encoder_drift",
    "Squared MMD of the last embeddings to the training images' over the limit: above 1 is an alarm.",
    OF,
    multiprocess_mode="mostrecent",
)
DRIFT_EVERY = 16  # embeddings
FILES = ("counter", "gauge_mostrecent", "histogram")  # as prometheus_client calls a process's files
MAPPED = 1 << 18  # bytes of each: what a process counts of some thirty models


class Meter:
    """Counts for one model in one worker. sketch: a file; without it drift is not measured."""

    def __init__(self, model: str, version: str, sketch: Path) -> None:
        if FOLDER in os.environ and not reserved(Path(os.environ[FOLDER])):
            prometheus_client.values.ValueClass = (
                prometheus_client.values.MutexValue
            )  # better uncounted than not answered
        self.of = (model, version)
        self.batch_images, self.decode, self.inference = (h.labels(*self.of) for h in (BATCH, DECODE, INFERENCE))
        self.window = Window(Sketch.load(sketch)) if sketch.exists() else None
        self.due, self.lock = 0, Lock()

    def count(
        self, statuses: Iterable[int], images: Iterable[int], embeddings: Floats, decode: float, inference: float
    ) -> None:
        """A batch: the statuses of its requests and of their images, what was embedded (B, D), and seconds."""
        for counter, each in ((REQUESTS, statuses), (IMAGES, images)):
            for status, n in Tally(each).items():
                counter.labels(*self.of, str(status)).inc(n)
        self.decode.observe(decode)
        if len(embeddings):
            self.batch_images.observe(len(embeddings))
            self.inference.observe(inference)

    def drift(self, embeddings: Floats) -> None:
        """Embeddings (B, D) of what people asked."""
        if self.window is None or not len(embeddings):
            return
        with self.lock:
            self.window.add(embeddings)
            if self.window.seen >= self.due and (distance := self.window.distance) is not None:
                DRIFT.labels(*self.of).set(distance / self.window.of.limit)
                self.due = self.window.seen + DRIFT_EVERY


def reserved(folder: Path) -> bool:
    """Reserve disk space for all counters of this process: without it, a write to a mapped file ends it (SIGBUS)."""
    paths = [folder / f"{kind}_{os.getpid()}.db" for kind in FILES]
    try:
        for path in paths:
            if not path.exists():
                with path.open("xb") as file:
                    file.write(bytes(MAPPED))
                    file.flush()
                    os.fsync(file.fileno())
        return True
    except OSError:
        for path in paths:
            path.unlink(missing_ok=True)
        return False


def exposition(folder: Path | None = None) -> bytes:
    """The counters in Prometheus' text format: of this process, or of all processes that count into a folder."""
    if folder is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)
