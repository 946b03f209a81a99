"""How well an intensity histogram alone tells which crops are of the same image: SimCLR, section 3.1 and figure 6.

→ artifacts/methods/<method>/histogram.json: found, the views in percent whose histogram is nearest to that of their
partner among all others (L1 distance); histogram.png: two images, crops of them and the histograms.
"""

import io
import json

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from data.shards import Prepared
from models.methods import METHODS
from pipelines.engine.prefetch import generator
from pipelines.project import config, stage

READING = "histogram"
BINS = 32
MOST, DRAWN, CROPS = 500, 2, 4  # images of the test split; images of the picture, and their crops


def main(name: str) -> None:
    c, prepared = config.load(), Prepared(stage.PREPARED)
    method = c.build(name, prepared.manifest)
    images = torch.from_numpy(prepared.images(prepared.rows("test")[:MOST]))
    n, side = len(images), images.shape[-1]
    one, two = method.views(images, method.draw(n, side, side, generator(c.seed, 0)))[:2]
    share = {"found": 100 * found(histograms(one), histograms(two))}
    stage.artifact(name, f"{READING}.json").write_text(json.dumps(share, indent=2) + "\n", encoding="utf-8")
    some = images[torch.arange(DRAWN) * (n // DRAWN)].repeat_interleave(CROPS // 2, dim=0)
    pairs = method.views(some, method.draw(len(some), side, side, generator(c.seed, 1)))[:2]
    crops = torch.stack(pairs, dim=1).flatten(0, 1)  # (images · crops, 3, S, S)
    stage.artifact(name, f"{READING}.png").write_bytes(picture(crops))


def histograms(views: Tensor) -> Tensor:
    """(B, 3, S, S) in [0, 1] → the share of each intensity, over pixels and channels, (B, BINS)."""
    levels = (views.clamp(0, 1) * BINS).long().clamp(max=BINS - 1).flatten(1)
    counts = torch.zeros(len(views), BINS).scatter_add_(1, levels, torch.ones(levels.shape))
    return counts / levels.shape[1]


def found(one: Tensor, two: Tensor) -> float:
    """The share of histograms (B, BINS) whose nearest one among `two` is of the same image."""
    nearest = torch.cdist(one, two, p=1).argmin(dim=1)
    return float((nearest == torch.arange(len(one))).double().mean())


def picture(crops: Tensor) -> bytes:
    """A PNG: a row of crops per image, each above its histogram."""
    figure, axes = plt.subplots(2 * DRAWN, CROPS, figsize=(1.5 * CROPS, 2.6 * DRAWN), layout="constrained")
    shares = histograms(crops)
    for i, (crop, share) in enumerate(zip(crops, shares, strict=True)):
        row, column = divmod(i, CROPS)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        above.imshow(crop.clamp(0, 1).permute(1, 2, 0).numpy())
        above.axis("off")
        below.bar(torch.arange(BINS).numpy() / BINS, share.numpy(), width=1 / BINS, color="#0b5cad")
        below.set(ylim=(0, 0.2), yticks=[], xticks=[0, 1])  # a black ground alone fills half of an image
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, facecolor="white")
    plt.close(figure)
    return file.getvalue()


if __name__ == "__main__":
    stage.enter(f"studies.readings.{READING}", main, __doc__, METHODS)
