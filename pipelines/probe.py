"""Stage probe@<method>: frozen features → artifacts/<method>/: features.npz, scores.csv, metrics.json, diagnosis.json.

Always beside a random encoder of the same architecture and raw pixels: same images, same draws, same probe.
The protocol: docs/evaluation.md.
"""

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data import shards
from data.shards import Prepared
from models import blur, colour, logistic, probe, resample, views
from models.diagnose import diagnose
from models.probe import Array, Labels
from models.saved import restore
from models.views import view
from pipelines import config, gpus, protocol, scores, stage, tracking, watch
from pipelines.config import Config
from pipelines.kept import kept
from pipelines.protocol import SPLITS, Reading
from pipelines.scores import ALL, Score
from pipelines.watch import LAW

BATCH = 256
PIXELS = 32  # side of the raw-pixel control at most
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

    def judge(who: str, seed: int, encoder: nn.Module | None) -> dict[str, Any]:
        features, found = seen(encoder, prepared, c.seed)
        read = list(protocol.readings(features, y, shots, c.probe, c.seed)) if y else []
        if (who, seed) == (name, c.seed):
            save_features(name, features, y, read)
        picked = [(f"C_{r.labels}", r.C) for r in read if r.C is not None]
        lines = [asdict(protocol.score(r, y, who, seed)) for r in read]
        return {"scores": lines, "figures": [*picked, *found.items()]}

    for who, seed, encoder in readers(name, c, prepared):
        work = partial(judge, who, seed, encoder)
        # Of the pixels every method's stage says the same: the first one computes it.
        judged = work() if encoder is not None else kept("pixels-probe", deciding(c, prepared), work)
        told[who] += [Score(**of) for of in judged["scores"]]
        for key, value in judged["figures"]:
            measured[who][key].append(value)
    metrics = {who: scores.figures(told[who]) | summary(found) for who, found in measured.items()}
    scores.write(stage.artifact(name, "scores.csv"), [s for of in told.values() for s in of])
    stage.artifact(name, "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    for who, figures in metrics.items():
        print(f"{who}: {' · '.join(f'{k} {v:.1f}' for k, v in figures.items() if told_aloud(k))}")
    found = diagnose(name, c.method(name), tracking.read_history(stage.artifact(name, "history.jsonl")))
    stage.artifact(name, "diagnosis.json").write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    print(f"{name}: {found}")


def deciding(c: Config, prepared: Prepared) -> dict[str, Any]:
    """All that decides the figures of the pixels."""
    code = [probe, logistic, views, blur, colour, resample, shards, protocol, scores, watch, sys.modules[__name__]]
    digests = [hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest() for module in code]
    return {"data": prepared.manifest.digest, "probe": asdict(c.probe), "seed": c.seed, "code": digests,
            "torch": torch.__version__}  # fmt: skip


def label_counts(y: dict[str, Labels], wanted: Sequence[int]) -> list[int]:
    """Those that every class of train has; a sentence about the others."""
    if not y:
        return []
    shots = probe.shots_of(y["train"][y["train"] >= 0], wanted)
    if left := [str(n) for n in wanted if n not in shots]:
        print(f"not every class has so many labels in train, so left out: {', '.join(left)} a class")
    return shots


def readers(name: str, c: Config, prepared: Prepared) -> Iterator[tuple[str, int, nn.Module | None]]:
    """(who, pretraining seed, encoder) of the trained encoders, as many random ones, and the pixels: None."""
    checkpoint = torch.load(stage.artifact(name, "checkpoint.pt"), weights_only=True)
    trained = {c.seed: checkpoint["weights"]} | checkpoint.get("repeats", {})
    for seed, weights in trained.items():
        yield name, seed, restore(checkpoint["spec"], weights)
    for seed in trained:
        yield f"random-{name}", seed, c.build(name, prepared.manifest, seed).encoder
    yield "pixels", c.seed, None


def seen(encoder: nn.Module | None, prepared: Prepared, seed: int) -> tuple[dict[str, Array], Metrics]:
    """Split → features, and what they say without labels. A GPU is held as long as this takes, not for the probe.

    An encoder in train mode, as it was built, gets its batch-norm statistics from the train images first.
    """
    with gpus.device() if encoder is not None else nullcontext(torch.device("cpu")) as device:
        extract: Extract = pixel_features
        if encoder is not None:
            if encoder.training:
                probe.calibrate(encoder.to(device), (x.to(device) for x in images(prepared, "train")))
            extract = encoder_features(encoder, device)
        features = {s: extract(images(prepared, s)) for s in SPLITS}
        found = unlabelled(extract, prepared, seed)
        if encoder is not None and device.type == "cuda":
            encoder.cpu()
            torch.cuda.empty_cache()  # the next run finds all of the GPU
    return features, found


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
        batches = list(images(prepared, split, protocol.COMPARED))
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
