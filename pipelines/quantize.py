"""An encoder's fp32 graph in a lower precision.

Images stay uint8, embeddings float32, the batch free and the metadata what they were: who serves it need not know.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor

Lower = Literal["fp16", "int8"]
CALIBRATION = 256  # images of train
BATCH = 32


def lower(path: Path, precision: Lower, calibration: Iterable[Tensor], out: Path) -> None:
    """Write the fp32 graph at `path` in another precision. calibration: uint8 batches (B, 3, S, S) of training images.

    int8 is static where the graph convolves: a scale for each output channel of a weight, and for an activation that of
    the calibration images. It is dynamic for transformers, whose activations have outliers: a scale for each batch.
    """
    quant_pre_process(path, out, skip_symbolic_shape=True)
    graph = onnx.load(out)
    if precision == "fp16":
        onnx.save(convert_float_to_float16(graph, keep_io_types=True), out)
    elif any(node.op_type == "MatMul" for node in graph.graph.node):
        # Not the patches' convolution: ONNX Runtime's integer one is slower than its fp32 one.
        quantize_dynamic(graph, out, ["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
    else:
        # Unsigned activations: signed ones are two to three times slower on x86.
        quantize_static(graph, out, Calibration(calibration), per_channel=True, activation_type=QuantType.QUInt8)


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Batches of images as ONNX Runtime asks for them."""

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self._parts = parts(batches)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(({"images": part} for part in self._parts), None)


def embed(path: Path, batches: Iterable[Tensor]) -> NDArray[np.float32]:
    """Embeddings (n, D) of uint8 batches (B, 3, S, S) by ONNX Runtime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"images": part})[0] for part in parts(batches)])


def parts(batches: Iterable[Tensor]) -> Iterator[NDArray[np.uint8]]:
    for batch in batches:
        pixels = batch.numpy()
        yield from (pixels[i : i + BATCH] for i in range(0, len(pixels), BATCH))
