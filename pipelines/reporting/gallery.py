"""Every chart and picture of the report, made once: for the page and for MLflow."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from models.encoders.vit import ViT
from models.method import Masking, Method
from pipelines.engine.prefetch import generator
from pipelines.project import stage
from pipelines.reporting import accuracy_charts, charts, pictures
from pipelines.reporting.results import Results
from pipelines.saving.pretrained import Pretrained

SHOWN = 8  # images of the test split, the same for all methods
QUERIES = 6  # of them, whose neighbours are looked for
NEIGHBOURS = 6
LEAST = 5  # images of which a map can be drawn
Arrays = Mapping[str, NDArray[Any]]


class Gallery:
    def __init__(self, r: Results):
        self.r = r
        size = r.prepared.manifest.preprocess.size
        self.test, self.train = r.prepared.rows("test"), r.prepared.rows("train")
        self.chosen = self.queries()
        self.images = torch.from_numpy(r.prepared.images(self.test[self.chosen]))
        self.headline = accuracy_charts.headline(r) if r.labelled else None
        self.curves = accuracy_charts.label_efficiency(r) if r.labelled else {}
        self.training = charts.training(r.histories)
        self.maps: dict[str, Figure] = {}
        self.neighbours: dict[str, pictures.Image] = {}
        self.views: dict[str, pictures.Image] = {}
        self.attention: dict[str, pictures.Image] = {}
        self.reconstructions: dict[str, dict[str, pictures.Image]] = {}
        self.confusion: NDArray[np.int64] | None = None
        for m in r.config.methods:
            trained = Pretrained.read(stage.artifact(m, "checkpoint.pt"))
            method = pictures.restored(m, r.config.method(m), trained, size)
            with np.load(stage.artifact(m, "features.npz")) as features:
                self.add_features(m, features)
            self.views[m] = self.drawn(method)
            if isinstance(method.encoder, ViT):
                self.attention[m] = pictures.mosaic(pictures.attended(method.encoder, self.images[:4]))
            if isinstance(method, Masking) and trained.kept:
                self.reconstructions[m] = self.filled_in(method)

    def queries(self) -> NDArray[np.int64]:
        """Places in the test split: an image of each class in turn, or evenly spaced without labels."""
        labels = self.r.prepared.labels(self.test)
        if not self.r.labelled:
            return np.linspace(0, len(self.test) - 1, SHOWN).astype(np.int64)
        classes = [np.flatnonzero(labels == c) for c in np.unique(labels[labels >= 0])]
        return np.array([of[turn] for turn in range(SHOWN) for of in classes if turn < len(of)][:SHOWN])

    def add_features(self, method: str, features: Arrays) -> None:
        classes, test = self.r.prepared.manifest.classes, features["test"]
        if len(test) >= LEAST:
            self.maps[method] = charts.embedding_map(test, self.r.prepared.labels(self.test), classes, method)
        places = pictures.neighbours(test[self.chosen[:QUERIES]], features["train"], NEIGHBOURS)
        self.neighbours[method] = self.beside(self.train[places])
        if method == self.r.champion:
            self.confusion = confusion(features, len(classes))

    def beside(self, found: NDArray[np.int64]) -> pictures.Image:
        """The queries, beside each the rows (q, k) that were found for it; those of another class are framed."""
        rows = []
        for query, others in zip(self.test[self.chosen], found, strict=False):
            line = np.array([query, *others])
            labels, tiles = self.r.prepared.labels(line), torch.from_numpy(self.r.prepared.images(line)) / 255
            wrong = (labels != labels[0]) & (labels >= 0) & (labels[0] >= 0)
            rows.append([framed(tile) if w else tile for tile, w in zip(tiles, wrong, strict=True)])
        return pictures.mosaic(rows, lead=True)

    def drawn(self, method: Method) -> pictures.Image:
        return pictures.mosaic(pictures.seen(method, self.images[:4], generator(self.r.config.seed, 0)), lead=True)

    def filled_in(self, method: Masking) -> dict[str, pictures.Image]:
        strips = {"original": list(self.images / 255)}
        found = pictures.reconstructions(method, self.images, generator(self.r.config.seed, 0))
        for ratio, (masked, filled) in found.items():
            strips |= {f"{ratio:.0%} hidden": masked, f"{ratio:.0%} filled in": filled}
        return {name: pictures.mosaic([strip]) for name, strip in strips.items()}

    def pictures(self, method: str) -> dict[str, bytes]:
        """Name → PNG, of what belongs to one method."""
        images = {"neighbours": self.neighbours[method], "views": self.views[method]}
        images |= {"attention": self.attention[method]} if method in self.attention else {}
        images |= self.reconstructions.get(method, {})
        drawn = {"map": self.maps.get(method), "loss": self.training[charts.loss_of(method)]}
        drawn |= {"label efficiency": self.curves.get(method), "frozen features": self.curves.get("frozen")}
        return {name: pictures.png(i) for name, i in images.items()} | {
            name: chart_png(f) for name, f in drawn.items() if f
        }


def framed(tile: torch.Tensor) -> torch.Tensor:
    """The tile (3, S, S) with an edge that says: another class."""
    edge = max(1, tile.shape[-1] // 20)
    out = torch.tensor([0.90, 0.40, 0.05])[:, None, None].expand_as(tile).clone()
    out[:, edge:-edge, edge:-edge] = tile[:, edge:-edge, edge:-edge]
    return out


def confusion(features: Arrays, classes: int) -> NDArray[np.int64] | None:
    """Counts (class, what it is taken for) of the probe with all labels; None where there are none."""
    predicted = features.get("test_predictions", ())
    if not len(predicted):
        return None
    truth = features["test_labels"]
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth[truth >= 0], predicted[truth >= 0]), 1)
    return counts


def chart_png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=144, facecolor="white")
    return file.getvalue()
