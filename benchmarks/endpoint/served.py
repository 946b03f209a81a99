"""`python -m benchmarks.endpoint.served`: compare the served champion with other vectors.

In a finished project: TorchServe's vectors of the train and test images from every promoted name, those of a random
encoder like the champion's, and raw pixels. scikit-learn's logistic regression classifies each, with all train labels.
The label of an image without one is its file's name up to a double underscore.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.report import markdown
from data.shards import Prepared
from models.evaluation import probe
from pipelines.evaluation.difference import of_shares
from pipelines.evaluation.features import encoder_features, images, pixel_features
from pipelines.project import config, stage
from serving.client import Client
from serving.deploy import deploy
from serving.host import promoted
from serving.host.command import Parser
from serving.host.runtime import Runtime
from serving.torchserve.process import Server

Vectors = NDArray[np.float32]
CPU = torch.device("cpu")


def main() -> None:
    Parser(prog="python -m benchmarks.endpoint.served", description=__doc__).parse_args()
    prepared, known = Prepared(stage.PREPARED), promoted.read(stage.PROMOTED)
    y = {split: labels(prepared, split) for split in ("train", "test")}
    accuracies = {who: accuracy(of, y) for who, of in every(prepared, known)}
    champion, n = accuracies[known.encoder], len(y["test"])
    rows = []
    for who, percent in accuracies.items():
        d = of_shares(champion, percent, n)
        difference = "" if who == known.encoder else f"{d.points:+.1f} ± {d.margin:.1f}"
        rows.append({"vectors": who, "test, %": f"{percent:.1f}", "the champion's difference": difference})
    print(
        f"{known.dataset}: {len(y['train']):,} train and {n:,} test images, champion {known.champion}\n{markdown(rows)}"
    )


def labels(prepared: Prepared, split: str) -> NDArray[np.str_]:
    """The class of every image."""
    rows = prepared.rows(split)
    given = prepared.labels(rows)
    if (given >= 0).all():
        return np.array([prepared.classes[label] for label in given])
    return np.array([Path(prepared.path(row)).name.partition("__")[0] for row in rows])


def every(prepared: Prepared, known: promoted.Promoted) -> Iterator[tuple[str, dict[str, Vectors]]]:
    """Name → vectors of train and of test."""
    c = config.load()
    splits = ("train", "test")
    with tempfile.TemporaryDirectory() as scratch, Server(Runtime(Path(scratch, "run")), free_ports=True) as server:
        deploy(stage.PROMOTED, server.runtime)
        client = Client.of(server.runtime)
        for name in dict.fromkeys(model.name for model in known.models):
            files = {s: [stage.RAW / c.dataset / prepared.path(row) for row in prepared.rows(s)] for s in splits}
            yield name, {s: np.stack([np.asarray(v) for v in client.embed_many(name, files[s])]) for s in splits}
    random = c.build(known.champion, prepared.manifest).encoder
    probe.calibrate(random, images(prepared, "train"))
    extract = encoder_features(random, CPU)
    yield f"random, as {known.champion}", {s: extract(images(prepared, s)) for s in splits}
    yield "raw pixels", {s: pixel_features(images(prepared, s)) for s in splits}


def accuracy(of: dict[str, Vectors], y: dict[str, NDArray[np.str_]]) -> float:
    """Accuracy in percent of the test images."""
    reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    search = GridSearchCV(reader, {"logisticregression__C": [1e-3, 1e-2, 1e-1]}, cv=3)
    return 100 * float(search.fit(of["train"], y["train"]).score(of["test"], y["test"]))


if __name__ == "__main__":
    main()
