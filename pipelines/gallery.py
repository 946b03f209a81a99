"""Every chart and picture of the report, made once: for the page and for MLflow."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from models.mae import MAE
from models.methods import METHODS, Method
from models.vit import ViT
from pipelines import figures, pictures, stage
from pipelines.feed import generator
from pipelines.results import Results

SHOWN = 8  # images of the test split, the same for all methods
QUERIES = 6  # of them, whose neighbours are looked for
NEIGHBOURS = 6
Arrays = Mapping[str, NDArray[Any]]


class Gallery:
    def __init__(self, r: Results):
        self.r = r
        size = r.prepared.manifest.preprocess.size
        self.test = r.prepared.rows("test")
        self.chosen = self.queries()
        self.images = torch.from_numpy(r.prepared.images(self.test[self.chosen]))
        self.features = {m: dict(np.load(stage.artifact(m, "features.npz"))) for m in METHODS}
        checkpoints = {m: torch.load(stage.artifact(m, "checkpoint.pt"), weights_only=True) for m in METHODS}
        self.methods = {m: pictures.restored(m, r.config.method(m), checkpoints[m], size) for m in METHODS}
        self.curves = figures.label_efficiency(r) if r.labelled else {}
        self.training = figures.training(r.histories)
        labels = r.prepared.labels(self.test)
        self.maps = {
            m: figures.embedding_map(f["test"], labels, r.prepared.manifest.classes, m)
            for m, f in self.features.items()
        }
        self.neighbours = {m: self.nearest(f) for m, f in self.features.items()}
        self.views = {m: self.drawn(method) for m, method in self.methods.items()}
        self.reconstructions = self.filled_in() if checkpoints["mae"].get("decoder") else {}
        self.attention = {
            m: pictures.mosaic(pictures.attended(method.encoder, self.images[:4]))
            for m, method in self.methods.items()
            if isinstance(method.encoder, ViT)
        }
        self.confusion = confusion(self.features[r.champion], len(r.prepared.manifest.classes))

    def queries(self) -> NDArray[np.int64]:
        """Places in the test split: one image of each of the first classes, or evenly spaced without labels."""
        labels = self.r.prepared.labels(self.test)
        if not self.r.labelled:
            return np.linspace(0, len(self.test) - 1, SHOWN).astype(np.int64)
        known = [int(np.flatnonzero(labels == c)[0]) for c in np.unique(labels[labels >= 0])]
        return np.array(known[:SHOWN])

    def nearest(self, features: Arrays) -> pictures.Image:
        train = self.r.prepared.rows("train")
        places = pictures.neighbours(features["test"][self.chosen[:QUERIES]], features["train"], NEIGHBOURS)
        rows = []
        for query, found in zip(self.test[self.chosen[:QUERIES]], train[places], strict=True):
            tiles = torch.from_numpy(self.r.prepared.images(np.concatenate([[query], found]))) / 255
            own, *others = self.r.prepared.labels(np.concatenate([[query], found]))
            wrong = [min(own, other) >= 0 and own != other for other in others]
            rows.append([tiles[0], *(framed(t) if w else t for t, w in zip(tiles[1:], wrong, strict=True))])
        return pictures.mosaic(rows, lead=True)

    def drawn(self, method: Method) -> pictures.Image:
        return pictures.mosaic(pictures.seen(method, self.images[:4], generator(self.r.config.seed, 0)), lead=True)

    def filled_in(self) -> dict[str, pictures.Image]:
        method = self.methods["mae"]
        assert isinstance(method, MAE)
        strips = {"original": list(self.images / 255)}
        found = pictures.reconstructions(method, self.images, generator(self.r.config.seed, 0))
        for ratio, (masked, filled) in found.items():
            strips |= {f"{ratio:.0%} hidden": masked, f"{ratio:.0%} filled in": filled}
        return {name: pictures.mosaic([strip]) for name, strip in strips.items()}

    def pictures(self, method: str) -> dict[str, bytes]:
        """Name → PNG, of what belongs to one method."""
        images = {"neighbours": self.neighbours[method], "views": self.views[method]}
        images |= {"attention": self.attention[method]} if method in self.attention else {}
        if method == "mae":
            images |= self.reconstructions
        charts = {"map": self.maps[method], f"loss of {method}": self.training[f"loss of {method}"]}
        charts |= {"label efficiency": self.curves[method]} if method in self.curves else {}
        return {name: png(i) for name, i in images.items()} | {name: chart_png(f) for name, f in charts.items()}


def framed(tile: torch.Tensor) -> torch.Tensor:
    """The tile (3, S, S) with an edge that says: another class."""
    edge = max(1, tile.shape[-1] // 20)
    out = torch.tensor([0.90, 0.40, 0.05])[:, None, None].expand_as(tile).clone()
    out[:, edge:-edge, edge:-edge] = tile[:, edge:-edge, edge:-edge]
    return out


def confusion(features: Arrays, classes: int) -> NDArray[np.int64] | None:
    """Counts (class, what it is taken for) of the probe with all labels; None where there was none."""
    if "test_predictions" not in features:
        return None
    counts = np.zeros((classes, classes), np.int64)
    truth, said = features["test_labels"], features["test_predictions"]
    np.add.at(counts, (truth[truth >= 0], said[truth >= 0]), 1)
    return counts


def png(pixels: pictures.Image) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    factor = max(1, 640 // image.width)
    image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(file, "png")
    return file.getvalue()


def chart_png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=144, facecolor="white")
    return file.getvalue()
