"""What an encoder's graph of lower precision costs, and how much it may."""

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
    """What a graph's embeddings of val are good for, in percent, beside those in fp32.

    measure: the linear probe's accuracy or, without labels, the share of images whose embedding is nearer to its own in
    fp32 than to any other's. min_cosine: of an embedding to its own in fp32, the smallest.
    """

    measure: Literal["linear probe", "retrieval"]
    in_fp32: float
    lower: float
    min_cosine: float

    @property
    def drop(self) -> float:
        """In points; below 0 where the lower precision happens to be better."""
        return round(self.in_fp32 - self.lower, 6)

    def check(self, precision: str) -> None:
        """Raises StageError where the drop or the cosine is outside what is allowed, or not a number."""
        if not self.drop <= DROP:
            raise StageError(
                f"{self.measure} on val: {self.in_fp32:.1f} % in fp32, {self.lower:.1f} % in {precision}, "
                f"{self.drop:.1f} points less; allowed: {DROP}; set export.precision to fp32"
            )
        if not self.min_cosine >= COSINE[precision]:
            raise StageError(
                f"an embedding of val in {precision} has a cosine of {self.min_cosine:.4f} to its own in fp32; "
                f"allowed: {COSINE[precision]} or more; set export.precision to fp32"
            )


def cost(low: Array, features: Mapping[str, Array], prepared: Prepared, grid: Sequence[float]) -> Cost:
    """Of val's embeddings (n, D) in a lower precision. features: train's and val's in fp32; grid: C of the probe.

    One probe, fitted on train in fp32, reads both: what was fitted before the precision changed stays of use.
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
