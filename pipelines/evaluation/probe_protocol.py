"""The frozen protocol: features and labels → accuracies. docs/explanation/evaluation.md says what and why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from data.shards import Prepared
from models.evaluation import probe
from models.evaluation.probe import Array, Labels
from pipelines.evaluation.scores import ALL, JUDGED, How, Predictions, Score, Split
from pipelines.project.config import ProbeParams

SPLITS = ("train", "val", "test")
COMPARED = 1000  # images of which views are compared, at most


@dataclass(frozen=True)
class Reading:
    """What a probe said of every image of test and val, with one label sample; C: that of the linear probe."""

    how: How
    labels: str
    sample: int
    predictions: dict[Split, Labels]  # split → (n,)
    C: float | None = None


def labels(prepared: Prepared) -> dict[str, Labels]:
    """Split → (n,) labels, -1 where there is none. Empty where a split has not two classes to tell apart."""
    y = {s: prepared.labels(prepared.rows(s)) for s in SPLITS}
    return y if all(len(np.unique(of[of >= 0])) > 1 for of in y.values()) else {}


def readings(
    features: Mapping[str, Array], y: Mapping[str, Labels], shots: list[int], p: ProbeParams, seed: int
) -> Iterator[Reading]:
    """Linear probe and kNN at each label count, a sample at a time, and at all labels.

    features: split → (n, D); y: split → (n,). The samples depend on y, shots and seed alone: equal for every encoder.
    """
    known = y["train"] >= 0
    truth, raw = y["train"][known], features["train"] if known.all() else features["train"][known]
    scaled = probe.scaling(features["train"])
    x, *standard = (scaled(of) for of in (raw, *(features[s] for s in JUDGED)))
    samples = [
        (str(n), i, rows, n)
        for n in shots
        for i, rows in enumerate(probe.label_samples(truth, n, p.label_samples, seed))
    ]
    for count, sample, rows, most in [*samples, (ALL, 0, np.arange(len(truth)), len(truth))]:
        predicted, C = probe.linear_probe(x[rows], truth[rows], standard, p.C)
        yield Reading("linear", count, sample, dict(zip(JUDGED, predicted, strict=True)), C)
        k = min(p.neighbours, most)  # no class has more
        votes = {s: probe.knn(raw[rows], truth[rows], features[s], k, p.temperature) for s in JUDGED}
        yield Reading("knn", count, sample, votes)


def score(reading: Reading, y: Mapping[str, Labels], who: str, seed: int) -> Score:
    """seed: of the pretraining."""
    said = {split: judged(reading.predictions[split], y[split]) for split in JUDGED}
    return Score.of(who, reading.how, reading.labels, seed, reading.sample, said)


def judged(prediction: Labels, truth: Labels) -> Predictions:
    """Of the images that have a label."""
    known = truth >= 0
    return Predictions(prediction[known], truth[known])


def accuracy(prediction: Labels, truth: Labels) -> float:
    """Top-1 in percent, of the images that have a label."""
    return judged(prediction, truth).accuracy
