"""Measure what a lower precision costs, and refuse it when that is too much."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.shards import Prepared
from models.evaluation import probe
from models.evaluation.probe import Array
from pipelines.evaluation import probe_protocol
from pipelines.project.stage import StageError

DROP = 0.5  # points, at most
COSINE = {"fp32": 0.9999, "fp16": 0.9999, "int8": 0.99}  # of an embedding to torch's, at least


@dataclass(frozen=True)
class Cost:
    """How good a graph's embeddings of val are, in percent, beside those in fp32.

    measure: the accuracy of the linear probe. Without labels: the share of images whose embedding is closer to its own
    in fp32 than to that of any other image. min_cosine: the smallest cosine of an embedding to its own in fp32.
    """

    measure: Literal["linear probe", "retrieval"]
    in_fp32: float
    lower: float
    min_cosine: float

    @property
    def drop(self) -> float:
        """In points; below 0 when the lower precision happens to be better."""
        return round(self.in_fp32 - self.lower, 6)

    def check(self, precision: str) -> None:
        """Raises StageError when the drop or the cosine is not allowed, or not a number."""
        if not self.drop <= DROP:
            raise StageError(
                f"Export in {precision} costs too much: {self.measure} on val is {self.lower:.1f} %, {self.drop:.1f} "
                f"points less than the {self.in_fp32:.1f} % in fp32. Allowed: {DROP}. "
                "Set export.precision: fp32 in params.yaml."
            )
        if not self.min_cosine >= COSINE[precision]:
            raise StageError(
                f"Export in {precision} changes an embedding of val too much: its cosine to the one in fp32 is "
                f"{self.min_cosine:.4f}. Allowed: {COSINE[precision]} or more. "
                "Set export.precision: fp32 in params.yaml."
            )


def cost(low: Array, features: Mapping[str, Array], prepared: Prepared, grid: Sequence[float]) -> Cost:
    """Of val's embeddings (n, D) in a lower precision. features: train's and val's in fp32; grid: C of the probe.

    One probe, fitted on train in fp32, predicts for both: a classifier fitted before the change must keep working.
    """
    full, y = features["val"], probe_protocol.labels(prepared)
    norms = np.linalg.norm(full, axis=1) * np.linalg.norm(low, axis=1)
    min_cosine = float(((full * low).sum(axis=1) / norms).min())
    if not y:
        step = -(-len(full) // probe_protocol.COMPARED)
        own, of_low = (100 * probe.retrieval(x[::step], full[::step]) for x in (full, low))
        return Cost("retrieval", own, of_low, min_cosine)
    known = y["train"] >= 0
    x, *queries = probe.standardize(features["train"], features["train"][known], full, low)[1:]
    predicted, _ = probe.linear_probe(x, y["train"][known], queries, grid)
    own, of_low = (probe_protocol.accuracy(t, y["val"]) for t in predicted)
    return Cost("linear probe", own, of_low, min_cosine)
