"""Reconstruct test images of which other shares are masked than in training: MAE, figure 4.

→ artifacts/methods/<method>/reconstruction.json: loss_75, … per share in percent, the error on masked patches over that
of the mean image; reconstruction.png: six images in rows, masked and reconstructed at each share.
"""

import json
from dataclasses import replace

import torch
from torch import Tensor

from data.shards import Prepared
from models.method import Masking
from models.methods import METHODS
from pipelines.engine.prefetch import generator
from pipelines.project import config, stage
from pipelines.project.stage import StageError
from pipelines.reporting import pictures
from pipelines.saving.pretrained import Pretrained

READING = "reconstruction"
SHARES = (0.25, 0.5, 0.75, 0.85, 0.9, 0.95)
DRAWN = 6  # images of the picture
MOST = 1000  # images of the test split


def main(name: str) -> None:
    c, prepared = config.load(), Prepared(stage.PREPARED)
    trained = Pretrained.read(stage.artifact(name, "checkpoint.pt"))
    method = pictures.restored(name, c.method(name), trained, prepared.manifest.preprocess.size)
    if not isinstance(method, Masking):
        raise StageError(f"The method {name} masks nothing, so it has nothing to reconstruct.")
    images = torch.from_numpy(prepared.images(prepared.rows("test")[:MOST]))
    noise = torch.rand(len(images), method.encoder.grid**2, generator=generator(c.seed, 0))
    losses = {f"loss_{round(100 * share)}": relative(method, images, noise, share) for share in SHARES}
    stage.artifact(name, f"{READING}.json").write_text(json.dumps(losses, indent=2) + "\n", encoding="utf-8")
    stage.artifact(name, f"{READING}.png").write_bytes(pictures.png(picture(method, images[:DRAWN], c.seed)))


@torch.inference_mode()
def relative(method: Masking, images: Tensor, noise: Tensor, share: float) -> float:
    """The error on masked patches (B, N), over that of the mean image: 1 is as good as the mean image."""
    trained = method.params
    method.params = replace(trained, mask_ratio=share)
    found = method.signals([images, noise], 1.0)["relative_loss"]
    method.params = trained
    return float(found)


def picture(method: Masking, images: Tensor, seed: int) -> pictures.Image:
    """A row per image: it, then for each share what is shown of it and its reconstruction."""
    found = pictures.reconstructions(method, images, generator(seed, 0), SHARES)
    columns = [list(images / 255), *(strip for pair in found.values() for strip in pair)]
    return pictures.mosaic(list(zip(*columns, strict=True)), lead=True)


if __name__ == "__main__":
    stage.enter(f"studies.readings.{READING}", main, __doc__, METHODS)
