"""Features of a frozen encoder, or of raw pixels, for every prepared image; and what they say without labels."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.shards import Prepared
from models.evaluation import probe
from models.evaluation.probe import Array
from models.views.augmentation import HEALTH_CHECK, view
from pipelines.evaluation import probe_protocol
from pipelines.evaluation.probe_protocol import SPLITS
from pipelines.machine import gpus

BATCH = 256
PIXELS = 32  # side of the raw-pixel baseline at most
VIEWS = 4  # of each
Metrics = dict[str, float]
Extract = Callable[[Iterable[Tensor]], Array]


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
    """Raw pixels, averaged down to 32 × 32 where there are more: a larger vector is no better baseline, only slower."""
    small = [F.adaptive_avg_pool2d(x.float(), min(x.shape[-1], PIXELS)) for x in batches]
    return torch.cat(small).flatten(1).numpy()


def unlabelled(extract: Extract, prepared: Prepared, seed: int) -> Metrics:
    """What needs no labels, in percent, from views of up to 1,000 images of test and (val_) of val.

    retrieval: the images whose second view finds the first among all others'; between_images: `probe.between_images`.
    """
    metrics: Metrics = {}
    for split, prefix in (("test", ""), ("val", "val_")):
        generator = torch.Generator().manual_seed(seed)
        batches = list(images(prepared, split, probe_protocol.COMPARED))
        size = prepared.manifest.preprocess.size
        drawn = ([(view(x, size, HEALTH_CHECK, generator) * 255).round().byte() for x in batches] for _ in range(VIEWS))
        augmentation = np.stack([extract(v) for v in drawn])
        metrics[f"{prefix}retrieval"] = 100 * probe.retrieval(augmentation[0], augmentation[1])
        metrics[f"{prefix}between_images"] = 100 * probe.between_images(augmentation)
    return metrics
