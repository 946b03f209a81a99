"""The sketch of the training images by which a server notices that its images have changed: serving/worker/drift.py."""

from pathlib import Path

from data.shards import Prepared
from pipelines.evaluation.features import images
from pipelines.release import quantize
from serving.worker import drift

TRAIN = 2000


def write(onnx: Path, prepared: Prepared, path: Path) -> None:
    """Of the embeddings that this graph gives; the alarm's limit is from val, which nothing was trained on."""
    train, val = quantize.embed(onnx, images(prepared, "train", TRAIN)), quantize.embed(onnx, images(prepared, "val"))
    drift.sketch(train, val).save(path)
