"""Clothing photographs whose garment is outlined by hand (`garments.json`), as an encoder sees them: centre squares.

What is chosen is chosen on those of validation; what is reported is measured on those of test.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data.decoding.decode import Preprocess, read

SIDE = 256  # pixels of the square on which areas are compared
Outline = list[tuple[float, float]]  # (x, y)
Area = NDArray[np.float64]  # (SIDE, SIDE), how much of each pixel belongs to it


@dataclass(frozen=True)
class Photograph:
    data: bytes  # of the file
    outlines: list[Outline]  # in pixels of the centre square

    @cached_property
    def square(self) -> Image.Image:
        return Image.fromarray(Preprocess(SIDE)(self.data).transpose(1, 2, 0))

    @cached_property
    def garment(self) -> Area:
        image = Image.new("1", (SIDE, SIDE))
        for outline in self.outlines:
            ImageDraw.Draw(image).polygon(outline, fill=1)
        return np.asarray(image, dtype=np.float64)


def photographs(folder: Path, split: str) -> list[Photograph]:
    """Those of a split that are outlined; folder holds the data set."""
    found = []
    for name, drawn in json.loads(Path(__file__).with_suffix(".json").read_text())["photos"].items():
        if name.startswith(f"{split}/"):
            data = (folder / name).read_bytes()
            size = read(data).size
            found.append(Photograph(data, [[on_square(x, y, *size) for x, y in outline] for outline in drawn]))
    return found


def on_square(x: float, y: float, width: int, height: int) -> tuple[float, float]:
    """Percent of a photograph of this size → pixels of its centre square, which `data.decoding.decode` keeps."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return (x / 100 * width - left) * SIDE / side, (y / 100 * height - top) * SIDE / side


def patches(mask: NDArray[np.bool_]) -> Area:
    """A mask of patches, (rows, columns)."""
    return np.asarray(Image.fromarray(mask).resize((SIDE, SIDE), Image.Resampling.NEAREST), dtype=np.float64)


def in_patches(garment: Area, grid: int) -> NDArray[np.bool_]:
    """(grid, grid): the patches of which half or more is garment."""
    shares = Image.fromarray(garment.astype(np.float32)).resize((grid, grid), Image.Resampling.BOX)
    return np.asarray(shares) >= 0.5


def box(area: float) -> Area:
    """The square in the middle that has this share of the area; pixels on its edge belong to it in part."""
    low, high = SIDE / 2 * (1 - area**0.5), SIDE / 2 * (1 + area**0.5)
    pixels = np.arange(SIDE)
    inside = np.clip(np.minimum(pixels + 1, high) - np.maximum(pixels, low), 0, 1)
    return np.outer(inside, inside)


def overlap(area: Area, garment: Area) -> tuple[float, float]:
    """Intersection over union, and the share of the garment that is covered."""
    both = np.minimum(area, garment).sum()
    return float(both / np.maximum(area, garment).sum()), float(both / garment.sum())
