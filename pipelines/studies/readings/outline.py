"""Compare the class token's attention with the outlines of objects: DINO, figure 4.

→ artifacts/methods/<method>/outline.json: iou, the overlap in percent of the object and the mask of 60 % of the
attention, of the best head of each image as in the paper; random: the same of an untrained encoder. outline.png: image,
object, mask.

The object is what is brighter than the image's own threshold (Otsu, 1979): true for digits, which are white on black.
"""

import json

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.shards import Prepared
from models.encoders.vit import ViT
from models.evaluation import attention
from models.methods import METHODS
from pipelines.project import config, stage
from pipelines.project.stage import StageError
from pipelines.reporting import pictures
from pipelines.saving.pretrained import Pretrained

READING = "outline"
SHARE = 0.6  # of the attention's mass that a mask holds, the paper's
MOST, DRAWN = 1000, 6  # images of the test split, and of the picture


def main(name: str) -> None:
    c, prepared = config.load(), Prepared(stage.PREPARED)
    trained = Pretrained.read(stage.artifact(name, "checkpoint.pt"))
    images = torch.from_numpy(prepared.images(prepared.rows("test")[:MOST]))
    encoders = {"iou": trained.encoder(), "random": c.build(name, prepared.manifest, c.seed).encoder.eval()}
    overlaps, pictured = dict[str, float](), dict[str, pictures.Image]()
    for key, encoder in encoders.items():
        if not isinstance(encoder, ViT):
            raise StageError(f"The encoder of {name} has no attention. Set {name}.encoder to a vision transformer.")
        found = masks(encoder, images)
        overlaps[key] = 100 * float(overlap(found, objects(images)).mean())
        pictured.setdefault(key, picture(found[:DRAWN], images[:DRAWN]))
    stage.artifact(name, f"{READING}.json").write_text(json.dumps(overlaps, indent=2) + "\n", encoding="utf-8")
    stage.artifact(name, f"{READING}.png").write_bytes(pictures.png(pictured["iou"]))


def objects(images: Tensor) -> Tensor:
    """uint8 (B, 3, S, S) → where the object is, (B, S, S)."""
    grey = images.float().mean(dim=1)
    return torch.stack([image > threshold(image) for image in grey])


def threshold(image: Tensor) -> float:
    """The grey level that parts an image (S, S) into two classes of the largest variance between them (Otsu, 1979)."""
    values, counts = np.unique(image.round().numpy(), return_counts=True)
    below = counts.cumsum() / counts.sum()  # ω
    mean = (values * counts).cumsum() / counts.sum()  # μ
    between = (mean[-1] * below - mean) ** 2 / np.maximum(below * (1 - below), 1e-12)
    return float(values[between[:-1].argmax()]) if len(values) > 1 else float(values[0])


def masks(encoder: ViT, images: Tensor) -> Tensor:
    """The mask of each head in pixels, (B, heads, S, S)."""
    found = attention.mass_mask(attention.attention(encoder, images), SHARE).float()
    return F.interpolate(found, images.shape[-2:]) > 0


def overlap(masks: Tensor, objects: Tensor) -> Tensor:
    """Intersection over union of the best head of each image, (B,)."""
    both = (masks & objects[:, None]).flatten(2).sum(dim=2)
    either = (masks | objects[:, None]).flatten(2).sum(dim=2)
    return (both / either.clamp(min=1)).amax(dim=1)


def picture(masks: Tensor, images: Tensor) -> pictures.Image:
    """Rows: the images, their objects, the masks of the best heads of all, (B, heads, S, S)."""
    where = objects(images)
    best = torch.stack([overlap(masks[:, head : head + 1], where) for head in range(masks.shape[1])]).argmax(0)
    shown = [x.expand(3, -1, -1).float() for x in where[:, None]]
    chosen = [mask[head].expand(3, -1, -1).float() for mask, head in zip(masks, best, strict=True)]
    return pictures.mosaic([list(images / 255), shown, chosen])


if __name__ == "__main__":
    stage.enter(f"studies.readings.{READING}", main, __doc__, METHODS)
