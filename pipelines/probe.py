"""Stage probe@<method>: frozen features → artifacts/<method>/: features.npz, scores.csv, metrics.json, diagnosis.json.

Always beside a random encoder of the same architecture and raw pixels: same images, same draws, same probe.
The protocol: docs/evaluation.md.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import mean, median, stdev

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.shards import Prepared
from models import methods, probe
from models.diagnose import diagnose
from models.probe import Array, Labels
from models.saved import restore
from models.views import view
from pipelines import config, hardware, protocol, scores, stage, tracking
from pipelines.config import Config
from pipelines.protocol import SPLITS, Reading
from pipelines.scores import ALL, Score
from pipelines.watch import LAW

BATCH = 256
PIXELS = 32  # side of the raw-pixel control at most
COMPARED = 1000  # images of which views are compared, at most
VIEWS = 4  # of each
Metrics = dict[str, float]
Extract = Callable[[Iterable[Tensor]], Array]


def main(name: str) -> None:
    c = config.load()
    prepared = Prepared(stage.PREPARED)
    y = protocol.labels(prepared)
    shots = label_counts(y, c.probe.shots)
    told: dict[str, list[Score]] = defaultdict(list)
    measured: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with hardware.device() as device:
        for who, seed, extract in readers(name, c, prepared, device):
            features = {s: extract(images(prepared, s)) for s in SPLITS}
            read = list(protocol.readings(features, y, shots, c.probe, c.seed)) if y else []
            told[who] += [protocol.score(r, y, who, seed) for r in read]
            for r in read:
                if r.C is not None:
                    measured[who][f"C_{r.labels}"].append(r.C)
            for key, value in unlabelled(extract, prepared, c.seed).items():
                measured[who][key].append(value)
            if (who, seed) == (name, c.seed):
                save_features(name, features, y, read)
    metrics = {who: scores.figures(told[who]) | summary(found) for who, found in measured.items()}
    scores.write(stage.artifact(name, "scores.csv"), [s for of in told.values() for s in of])
    stage.artifact(name, "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for who, figures in metrics.items():
        print(f"{who}: {' · '.join(f'{k} {v:.1f}' for k, v in figures.items() if told_aloud(k))}")
    found = diagnose(name, c.method(name), tracking.read_history(stage.artifact(name, "history.jsonl")))
    stage.artifact(name, "diagnosis.json").write_text(json.dumps(asdict(found), indent=2) + "\n")
    print(f"{name}: {found}")


def label_counts(y: dict[str, Labels], wanted: Sequence[int]) -> list[int]:
    """Those that every class of train has; a sentence about the others."""
    if not y:
        return []
    shots = probe.shots_of(y["train"][y["train"] >= 0], wanted)
    if left := [str(n) for n in wanted if n not in shots]:
        print(f"not every class has so many labels in train, so left out: {', '.join(left)} a class")
    return shots


def readers(name: str, c: Config, prepared: Prepared, device: torch.device) -> Iterator[tuple[str, int, Extract]]:
    """(who, pretraining seed, its features) of the trained encoders, as many random ones, and the pixels."""
    checkpoint = torch.load(stage.artifact(name, "checkpoint.pt"), weights_only=True)
    trained = {c.seed: checkpoint["weights"]} | checkpoint.get("repeats", {})
    for seed, weights in trained.items():
        yield name, seed, encoder_features(restore(checkpoint["spec"], weights), device)
    m = prepared.manifest
    for seed in trained:
        random = methods.build(name, c.method(name), m.preprocess.size, m.mean, m.std, seed).encoder.to(device)
        probe.calibrate(random, (x.to(device) for x in images(prepared, "train")))
        yield f"random-{name}", seed, encoder_features(random, device)
    yield "pixels", c.seed, pixel_features


def images(prepared: Prepared, split: str, at_most: int | None = None) -> Iterator[Tensor]:
    """uint8 batches (B, 3, S, S) of a split, in order, read as they are used; evenly over it where it has more."""
    rows = prepared.rows(split)
    if at_most is not None and len(rows) > at_most:
        rows = rows[np.arange(at_most) * len(rows) // at_most]  # a folder's first images are of its first classes
    for chunk in np.array_split(rows, max(1, -(-len(rows) // BATCH))):
        yield torch.from_numpy(prepared.images(chunk))


def encoder_features(encoder: nn.Module, device: torch.device) -> Extract:
    return lambda batches: probe.extract(encoder, batches, device)


def pixel_features(batches: Iterable[Tensor]) -> Array:
    """Raw pixels, averaged down to 32 × 32 where there are more: a larger vector is no better control, only slower."""
    small = [F.adaptive_avg_pool2d(x.float(), min(x.shape[-1], PIXELS)) for x in batches]
    return torch.cat(small).flatten(1).numpy()


def unlabelled(extract: Extract, prepared: Prepared, seed: int) -> Metrics:
    """What needs no labels, in percent, from views of up to 1,000 images of test and (val_) of val.

    retrieval: the images whose second view finds the first among all others'; between_images: `models/probe.py`.
    """
    metrics: Metrics = {}
    for split, prefix in (("test", ""), ("val", "val_")):
        generator = torch.Generator().manual_seed(seed)
        batches = list(images(prepared, split, COMPARED))
        size = prepared.manifest.preprocess.size
        drawn = ([(view(x, size, LAW, generator) * 255).round().byte() for x in batches] for _ in range(VIEWS))
        views = np.stack([extract(v) for v in drawn])
        metrics[f"{prefix}retrieval"] = 100 * probe.retrieval(views[0], views[1])
        metrics[f"{prefix}between_images"] = 100 * probe.between_images(views)
    return metrics


def summary(found: Mapping[str, list[float]]) -> Metrics:
    """The median of a C, mean and sd of all else, over draws and seeds."""
    metrics: Metrics = {}
    for key, values in found.items():
        metrics[key] = median(values) if key.startswith("C_") else mean(values)
        if len(values) > 1 and not key.startswith("C_"):
            metrics[f"{key}_sd"] = stdev(values)
    return metrics


def told_aloud(figure: str) -> bool:
    return not figure.startswith(("val_", "C_")) and not figure.endswith("_sd")


def save_features(name: str, features: dict[str, Array], y: dict[str, Labels], read: list[Reading]) -> None:
    """features.npz: train, val, test (n, D), train_labels and test_labels (-1 where there is none), test_predictions.

    The predictions are those of the linear probe on all labels; all three are empty without labels.
    """
    said = [r.predictions["test"] for r in read if (r.how, r.labels) == ("linear", ALL)]
    none = np.empty(0, np.int64)
    kept = {
        "train_labels": y.get("train", none),
        "test_labels": y.get("test", none),
        "test_predictions": said[0] if said else none,
    }
    np.savez(stage.artifact(name, "features.npz"), allow_pickle=False, **features, **kept)


if __name__ == "__main__":
    stage.run(f"probe@{sys.argv[1]}", lambda: main(sys.argv[1]))
