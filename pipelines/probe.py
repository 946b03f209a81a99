"""Stage probe@<method>: frozen features → features.npz, scores.csv, scores.npz, metrics.json, diagnosis.json.

A random encoder of the same architecture, raw pixels, and the weights that the pretraining started from, if any, are
measured in the same way: same images, same label samples, same probe. docs/explanation/evaluation.md describes it.
"""

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import torch
from torch import nn

from data import shards
from data.shards import Prepared
from models.diagnose import diagnose
from models.evaluation import logistic, probe
from models.evaluation.probe import Array, Labels
from models.methods import METHODS
from models.views import augmentation, blur, colour, resample
from pipelines.evaluation import features, probe_protocol, scores, starting_weights
from pipelines.evaluation.features import Metrics
from pipelines.evaluation.probe_protocol import Reading
from pipelines.evaluation.scores import ALL, INITIAL, Score
from pipelines.project import config, stage
from pipelines.project.config import Config
from pipelines.project.history import read_history
from pipelines.saving.pretrained import Pretrained
from pipelines.saving.shared_results import kept

Judged = tuple[list[Score], list[tuple[str, float]]]  # of one encoder: its scores, and its other figures


def main(name: str) -> None:
    c = config.load()
    prepared = Prepared(stage.PREPARED)
    y = probe_protocol.labels(prepared)
    shots = label_counts(y, c.probe.shots)
    judgements: dict[str, list[Score]] = defaultdict(list)
    measured: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def judge(who: str, seed: int, encoder: nn.Module | None) -> Judged:
        of_splits, found = features.seen(encoder, prepared, c.seed)
        read = list(probe_protocol.readings(of_splits, y, shots, c.probe, c.seed)) if y else []
        if (who, seed) == (name, c.seed):
            save_features(name, of_splits, y, read)
        picked = [(f"C_{r.labels}", r.C) for r in read if r.C is not None]
        return [probe_protocol.score(r, y, who, seed) for r in read], [*picked, *found.items()]

    for who, seed, encoder in readers(name, c, prepared):
        # The pixels' figures are the same for every method: the first stage computes them, the others read them.
        judged = (
            judge(who, seed, encoder) if encoder is not None else pixels(c, prepared, partial(judge, who, seed, None))
        )
        judgements[who] += judged[0]
        for key, value in judged[1]:
            measured[who][key].append(value)
    metrics = {who: scores.figures(judgements[who]) | summary(found) for who, found in measured.items()}
    scores.write(stage.artifact(name, "scores.csv"), [s for of in judgements.values() for s in of])
    stage.artifact(name, "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    for who, figures in metrics.items():
        print(f"{who}: {' · '.join(f'{k} {v:.1f}' for k, v in figures.items() if is_headline(k))}")
    found = diagnose(name, c.method(name), read_history(stage.artifact(name, "history.jsonl")))
    stage.artifact(name, "diagnosis.json").write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    print(f"{name}: {found}")
    print(headline(metrics[name], c.promote.labels, found.name))


def headline(figures: Mapping[str, float], labels: int | str, health: str) -> str:
    """The stage's key figure: the accuracy that the choice of the champion looks at, and the health of the training."""
    accuracy = figures.get(f"linear_{labels}")
    counted = "all labels" if labels == scores.ALL else f"{labels} labels per class"
    return (
        f"test accuracy {accuracy:.1f} % with {counted}, {health}"
        if accuracy is not None
        else f"without labels, {health}"
    )


def pixels(c: Config, prepared: Prepared, judge: Callable[[], Judged]) -> Judged:
    """As judge finds them, or as another stage has found them."""

    def fill(folder: Path) -> None:
        found, figures = judge()
        scores.write(folder / "scores.csv", found)
        (folder / "figures.json").write_text(json.dumps(figures), encoding="utf-8")

    folder = kept("pixels-probe", deciding(c, prepared), fill)
    return scores.read(folder / "scores.csv"), json.loads((folder / "figures.json").read_text(encoding="utf-8"))


def deciding(c: Config, prepared: Prepared) -> dict[str, Any]:
    """Everything that decides the figures of the pixels."""
    code = [probe, logistic, augmentation, blur, colour, resample, shards, features, probe_protocol, scores,
            sys.modules[__name__]]  # fmt: skip
    digests = [hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest() for module in code]
    return {"data": prepared.manifest.digest, "probe": asdict(c.probe), "seed": c.seed, "code": digests,
            "torch": torch.__version__}  # fmt: skip


def label_counts(y: dict[str, Labels], wanted: Sequence[int]) -> list[int]:
    """The wanted label counts that every class of train has. A sentence names the others."""
    if not y:
        return []
    shots = probe.shots_of(y["train"][y["train"] >= 0], wanted)
    if left := [str(n) for n in wanted if n not in shots]:
        print(f"Not measured: {', '.join(left)} labels per class, because not every class has so many labels in train.")
    return shots


def readers(name: str, c: Config, prepared: Prepared) -> Iterator[tuple[str, int, nn.Module | None]]:
    """(who, pretraining seed, encoder) of the trained encoders, the weights that they started from, if any, as many
    random ones, and the pixels (None).
    """
    pretrained = Pretrained.read(stage.artifact(name, "checkpoint.pt"))
    trained = pretrained.encoders(c.seed)
    for seed, encoder in trained.items():
        yield name, seed, encoder
    if (initial := starting_weights.encoder(name, c, prepared.manifest, pretrained)) is not None:
        yield f"{INITIAL}-{name}", c.seed, initial
    for seed in trained:
        yield f"random-{name}", seed, c.build(name, prepared.manifest, seed).encoder
    yield "pixels", c.seed, None


def summary(found: Mapping[str, list[float]]) -> Metrics:
    """Over label samples and seeds: the median of each C, mean and standard deviation of everything else."""
    metrics: Metrics = {}
    for key, values in found.items():
        metrics[key] = median(values) if key.startswith("C_") else mean(values)
        if len(values) > 1 and not key.startswith("C_"):
            metrics[f"{key}_sd"] = stdev(values)
    return metrics


def is_headline(figure: str) -> bool:
    """Whether the stage prints this figure at its end; metrics.json has all of them."""
    return not figure.startswith(("val_", "C_")) and not figure.endswith("_sd")


def save_features(name: str, of_splits: dict[str, Array], y: dict[str, Labels], read: list[Reading]) -> None:
    """features.npz: train, val, test (n, D), train_labels and test_labels (-1 where there is none), test_predictions.

    The predictions are those of the linear probe on all labels; all three are empty without labels.
    """
    predictions = [r.predictions["test"] for r in read if (r.how, r.labels) == ("linear", ALL)]
    none = np.empty(0, np.int64)
    kept = {
        "train_labels": y.get("train", none),
        "test_labels": y.get("test", none),
        "test_predictions": predictions[0] if predictions else none,
    }
    np.savez(stage.artifact(name, "features.npz"), allow_pickle=False, **of_splits, **kept)


if __name__ == "__main__":
    stage.enter("probe", main, __doc__, METHODS)
