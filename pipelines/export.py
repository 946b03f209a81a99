"""Stage export@<method>: the registered version → artifacts/methods/<method>/encoder.onnx, parity.json, golden.npz,
drift.npz, and an ONNX version in the registry.

The graph is one file: uint8 images in, normalisation inside, float32 embeddings out, any batch size. Its precision is
fp32, or a lower one where that costs little accuracy.
"""

import hashlib
import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from data.shards import Prepared
from models import saved
from models.encoders.encoder import Encoder
from models.encoders.weights import Spec
from models.methods import METHODS
from pipelines.evaluation.features import images
from pipelines.project import config, stage
from pipelines.project.config import Config
from pipelines.project.stage import StageError
from pipelines.registry import mlflow_store, receipts, runs
from pipelines.release import golden_images, precision_check, quantize
from pipelines.release.precision_check import Cost
from pipelines.release.quantize import Lower
from serving.worker import drift

OPSET = 18
BATCHES = (1, 2, 7)
SKETCHED = 2000  # train images, with which a server compares the images that it gets
TOLERANCE = 1e-4  # as a share of the largest entry of an embedding


@mlflow_store.refusals()
def main(name: str) -> None:
    c = config.load()
    precision = c.export.precision
    client = mlflow_store.connect()
    receipts.check(client, [name])
    receipt = receipts.read(stage.artifact(name, receipts.ENCODER.receipt))
    model, version = receipt["model"], receipt["version"]
    spec, encoder = saved.load(mlflow_store.download(f"models:/{model}/{version}"))
    path = stage.artifact(name, "encoder.onnx")
    described = {"dataset": spec["dataset"], "method": name, "version": version, "precision": precision}
    export(encoder, spec, described, path)
    prepared = Prepared(stage.PREPARED)
    parity = compare(encoder, path, prepared)
    if not parity["max_relative_difference"] <= TOLERANCE:  # also when it is not a number
        raise StageError(
            f"The graph {path} differs from the torch encoder by {parity['max_relative_difference']:.1e} of the "
            f"largest entry. Allowed: {TOLERANCE:.0e}. Look for operations that ONNX Runtime computes differently."
        )
    parity |= {"precision": precision, "drop": 0.0}
    if precision != "fp32":
        quantize.lower(path, precision, images(prepared, "train", quantize.CALIBRATION), path)
    train = quantize.embed(path, images(prepared, "train", SKETCHED))
    val = quantize.embed(path, images(prepared, "val"))
    if precision != "fp32":
        cost = cost_of(name, precision, val, prepared, c)
        parity |= {"drop": cost.drop, "min_cosine": cost.min_cosine, "cost": asdict(cost)}
    parity["bytes"] = path.stat().st_size
    golden_images.write(encoder, val, prepared, TOLERANCE, stage.artifact(name, "golden.npz"))
    drift.sketch(train, val).save(stage.artifact(name, "drift.npz"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    twin = f"{model}-onnx"
    registered = receipts.find(client, twin, receipts.GRAPH, digest)
    figures = {k: v for k, v in parity.items() if isinstance(v, float | str)}
    tags = {"method": name, "encoder_version": version, "onnx_digest": digest} | {k: str(v) for k, v in figures.items()}
    if registered is None:
        logged = log_onnx(receipt["run_id"], path, spec["image_size"])
        registered = receipts.register(client, twin, logged, tags)
    client.set_model_version_tag(model, version, "onnx_version", registered.version)
    for key, value in figures.items():
        client.set_model_version_tag(model, version, key, value)
    result = parity | {"onnx_model": twin, "onnx_version": str(registered.version), "onnx_digest": digest}
    stage.artifact(name, "parity.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"Exported {name} in {precision}: {parity['bytes'] / 1e6:.1f} MB. Compared with torch: largest difference "
          f"{parity['max_absolute_difference']:.1e} (fp32), smallest cosine {parity['min_cosine']:.6f}.")  # fmt: skip


def cost_of(name: str, precision: Lower, val: NDArray[np.float32], prepared: Prepared, c: Config) -> Cost:
    """What a lower precision costs on val. Raises StageError when that is too much."""
    with np.load(stage.artifact(name, "features.npz")) as kept:
        features = {split: kept[split] for split in ("train", "val")}
    cost = precision_check.cost(val, features, prepared, c.probe.C)
    cost.check(precision)
    print(f"{name}: {cost.measure} on val is {cost.lower:.1f} % in {precision} and {cost.in_fp32:.1f} % in fp32.")
    return cost


def export(encoder: Encoder, spec: Spec, described: dict[str, Any], path: Path) -> None:
    """Write the graph with `preprocess` and `model` in its metadata. Raises StageError when its batch size is fixed."""
    s = spec["image_size"]
    example = torch.zeros(2, 3, s, s, dtype=torch.uint8)  # the exporter would fix a batch size of 1 in the graph
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which is not needed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            encoder.eval(),
            (example,),
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    inputs, outputs = proto.graph.input[0], proto.graph.output[0]
    for value in (inputs, outputs):
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise StageError(
                f"The exported graph has a fixed batch size in {value.name!r}. Remove what reads len(x) in the "
                "encoder's forward."
            )
    dim = outputs.type.tensor_type.shape.dim[1].dim_value
    onnx.helper.set_model_props(
        proto, {"preprocess": spec["preprocess"], "model": json.dumps(described | {"dim": dim})}
    )
    onnx.checker.check_model(proto)
    onnx.save_model(proto, path, save_as_external_data=False)


def compare(encoder: Encoder, path: Path, prepared: Prepared) -> dict[str, Any]:
    """torch against ONNX Runtime on real images, at several batch sizes."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rows = np.concatenate([prepared.rows("val"), prepared.rows("test")])
    batches: dict[str, float] = {}
    ours: list[NDArray[np.float32]] = []
    theirs: list[NDArray[np.float32]] = []
    for n in BATCHES:
        images = prepared.images(rows[-n:])
        ours.append(saved.Predictor(encoder).predict(images))
        theirs.append(session.run(None, {"images": images})[0])
        batches[str(n)] = float(np.abs(ours[-1] - theirs[-1]).max())
    a, b = np.concatenate(ours), np.concatenate(theirs)
    cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    largest = max(batches.values())
    return {
        "batches": batches,
        "max_absolute_difference": largest,
        "max_relative_difference": largest / float(np.abs(a).max()),
        "min_cosine": float(cosine.min()),
    }


def log_onnx(run_id: str, path: Path, size: int) -> Any:
    """The graph as a logged model of the same run."""
    import mlflow  # noqa: PLC0415

    proto = onnx.load(path)
    dim = proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    with runs.reopened(run_id):
        return mlflow.onnx.log_model(
            proto,
            name="encoder-onnx",
            signature=receipts.signature(size, dim),
            save_as_external_data=False,
            onnx_execution_providers=["CPUExecutionProvider"],
            pip_requirements=[f"onnx=={onnx.__version__}", f"onnxruntime=={onnxruntime.__version__}"],
        )


if __name__ == "__main__":
    stage.enter("export", main, __doc__, METHODS)
