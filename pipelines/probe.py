"""Stage probe@<method>: frozen features → artifacts/<method>/features.npz, metrics.json.

Always beside a random encoder of the same architecture and raw pixels: same images, same draws, same probe.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from statistics import mean, stdev

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.shards import Prepared
from models import methods, probe
from models.probe import Array, Labels
from models.saved import restore
from models.views import ViewParams, view
from pipelines import config, hardware, stage
from pipelines.config import ProbeParams

BATCH = 256
PIXELS = 32  # side of the raw-pixel control at most
RETRIEVED = 1000  # images that retrieval compares at most
SPLITS = ("train", "val", "test")
# One law for every encoder and data set; no flip, since a mirrored digit is another sign.
LAW = ViewParams(area=(0.5, 1.0), flip=0.0, jitter=0.8, strengths=(0.4, 0.4, 0.4, 0.1))
Metrics = dict[str, float]
Extract = Callable[[Iterable[Tensor]], Array]


def main(name: str) -> None:
    c = config.load()
    prepared = Prepared(stage.PREPARED)
    checkpoint = torch.load(stage.artifact(name, "checkpoint.pt"), weights_only=True)
    trained = restore(checkpoint["spec"], checkpoint["weights"])
    m = prepared.manifest
    method = methods.build(name, c.method(name), m.preprocess.size, m.mean, m.std, c.seed)
    with hardware.device() as device:
        random = method.encoder.to(device)
        probe.calibrate(random, (x.to(device) for x in images(prepared, "train")))
        encoders: dict[str, Extract] = {
            name: encoder_features(trained, device),
            f"random-{name}": encoder_features(random, device),
            "pixels": pixel_features,
        }
        metrics: dict[str, Metrics] = {}
        for who, extract in encoders.items():
            features = {s: extract(images(prepared, s)) for s in SPLITS}
            metrics[who] = evaluate(features, prepared, c.probe, c.seed) | agreement(extract, prepared, c.seed)
            if who == name:
                np.savez(
                    stage.artifact(name, "features.npz"),
                    train=features["train"],
                    val=features["val"],
                    test=features["test"],
                )
            figures = " · ".join(f"{k} {v:.1f}" for k, v in metrics[who].items() if not k.startswith("val_"))
            print(f"{who}: {figures}")
    stage.artifact(name, "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


def images(prepared: Prepared, split: str, at_most: int | None = None) -> Iterator[Tensor]:
    """uint8 batches (B, 3, S, S) of a split, in order, read as they are used."""
    rows = prepared.rows(split)[:at_most]
    for chunk in np.array_split(rows, max(1, -(-len(rows) // BATCH))):
        yield torch.from_numpy(prepared.images(chunk))


def encoder_features(encoder: nn.Module, device: torch.device) -> Extract:
    return lambda batches: probe.extract(encoder, batches, device)


def pixel_features(batches: Iterable[Tensor]) -> Array:
    """Raw pixels, averaged down to 32 × 32 where there are more: a larger vector is no better control, only slower."""
    small = [F.adaptive_avg_pool2d(x.float(), min(x.shape[-1], PIXELS)) for x in batches]
    return torch.cat(small).flatten(1).numpy()


def evaluate(features: dict[str, Array], prepared: Prepared, p: ProbeParams, seed: int) -> Metrics:
    """Top-1 in percent, of test and (val_) of val: linear probes at few and all labels, kNN. Empty without labels."""
    x: dict[str, Array] = {}
    y: dict[str, Labels] = {}
    for split in SPLITS:
        labels = prepared.labels(prepared.rows(split))
        x[split], y[split] = features[split][labels >= 0], labels[labels >= 0]
    if any(len(np.unique(y[s])) < 2 for s in SPLITS):
        return {}
    prefixes = {"test": "", "val": "val_"}
    metrics: Metrics = {}
    votes = {s: probe.knn(x["train"], y["train"], x[s], p.neighbours, p.temperature) for s in prefixes}
    _, *standardised = probe.standardise(features["train"], *(x[s] for s in SPLITS))
    x = dict(zip(SPLITS, standardised, strict=True))
    for s, prefix in prefixes.items():
        metrics[f"{prefix}knn"] = accuracy(votes[s], y[s])
    for shots in p.shots:
        scores: dict[str, list[float]] = {s: [] for s in prefixes}
        for chosen in probe.label_draws(y["train"], shots, p.draws, seed):
            predictions = probe.linear_probe(x["train"][chosen], y["train"][chosen], [x[s] for s in prefixes], p.C)
            for s, prediction in zip(prefixes, predictions, strict=True):
                scores[s].append(accuracy(prediction, y[s]))
        for s, prefix in prefixes.items():
            metrics[f"{prefix}linear_{shots}"] = mean(scores[s])
            metrics[f"{prefix}linear_{shots}_sd"] = stdev(scores[s]) if p.draws > 1 else 0.0
    predictions = probe.linear_probe(x["train"], y["train"], [x[s] for s in prefixes], p.C)
    for (s, prefix), prediction in zip(prefixes.items(), predictions, strict=True):
        metrics[f"{prefix}linear_all"] = accuracy(prediction, y[s])
    return metrics


def agreement(extract: Extract, prepared: Prepared, seed: int) -> Metrics:
    """Needs no labels: the share of images, in percent, whose second view finds the first among all others' views."""
    metrics: Metrics = {}
    for split, prefix in (("test", ""), ("val", "val_")):
        generator = torch.Generator().manual_seed(seed)
        batches = list(images(prepared, split, RETRIEVED))
        size = prepared.manifest.preprocess.size
        drawn = [[(view(x, size, LAW, generator) * 255).round().byte() for x in batches] for _ in range(2)]
        a, b = map(extract, drawn)
        metrics[f"{prefix}retrieval"] = 100 * probe.retrieval(a, b)
    return metrics


def accuracy(prediction: Labels, truth: Labels) -> float:
    return 100 * float((prediction == truth).mean())


if __name__ == "__main__":
    stage.run(f"probe@{sys.argv[1]}", lambda: main(sys.argv[1]))
