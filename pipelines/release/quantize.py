"""Convert an encoder's fp32 graph to a lower precision.

Images stay uint8, embeddings float32, the batch size free and the metadata unchanged. So the server need not know.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx.inliner
import onnx.numpy_helper
import onnx.parser
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor

Lower = Literal["fp16", "int8"]
CALIBRATION = 256  # images of train
BATCH = 32


def lower(path: Path, precision: Lower, calibration: Iterable[Tensor], out: Path) -> None:
    """Write the fp32 graph at `path` in another precision. calibration: uint8 batches (B, 3, S, S) of training images.

    int8 is static where the graph convolves: a scale for each output channel of a weight, and for an activation that of
    the calibration images. It is dynamic for transformers, whose activations have outliers: a scale for each token,
    so that an image's vector does not depend on its neighbours in the batch.
    One file is served on any CPU: on x86 without VNNI, sums of 8-bit signed weights overflow. So weights are unsigned
    where the graph convolves, and have 7 bits in transformers.
    """
    quant_pre_process(path, out, skip_symbolic_shape=True)
    graph = onnx.load(out)
    if precision == "fp16":
        onnx.save(convert_float_to_float16(graph, keep_io_types=True), out)
    elif any(node.op_type == "MatMul" for node in graph.graph.node):
        # Not the patches' convolution: ONNX Runtime's integer one is slower than its fp32 one.
        onnx.save(by_tokens(graph), out)
    else:
        # Signed activations are two to three times slower on x86.
        unsigned = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8}
        quantize_static(graph, out, Calibration(calibration), per_channel=True, **unsigned)


# ONNX Runtime's dynamic quantisation has one scale for the whole batch. The token's own scale comes after the product:
# given to MatMulIntegerToFloat, or left for ONNX Runtime to fuse into it, it would multiply the bias too (1.32).
PRODUCT = onnx.parser.parse_function("""
<opset_import: ["": 18, "com.microsoft": 1], domain: "tokens">
Product (x, weight, weight_scale) => (out) {
    last = Constant <value_ints = [-1]> ()
    most = Constant <value = float {127}> ()
    least = Constant <value = float {1e-30}> ()
    one = Constant <value = float {1}> ()
    zero = Constant <value = uint8 {128}> ()
    sizes = Abs (x)
    largest = ReduceMax <keepdims = 1> (sizes, last)
    above_zero = Max (largest, least)
    scale = Div (above_zero, most)
    steps = Div (x, scale)
    y = QuantizeLinear (steps, one, zero)
    sums = com.microsoft.MatMulIntegerToFloat (y, weight, one, weight_scale, zero)
    out = Mul (sums, scale)
}""")


def by_tokens(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Products of activations (…, D) with weights (D, E) in integers: 127 steps either way for each token's largest
    entry, 63 for that of each of the weight's E columns, so that sums fit without VNNI."""
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights:
            continue
        name = node.input[1]
        weight = onnx.numpy_helper.to_array(weights[name])
        largest = np.abs(weight).max(axis=0)
        scale = np.where(largest > 0, largest, 1).astype(np.float32) / 63
        parts = {f"{name}_quantized": np.rint(weight / scale).astype(np.int8), f"{name}_scale": scale}
        graph.graph.initializer.remove(weights[name])
        graph.graph.initializer.extend(onnx.numpy_helper.from_array(part, key) for key, part in parts.items())
        node.op_type, node.domain, node.input[1:] = PRODUCT.name, PRODUCT.domain, parts
    graph.functions.append(PRODUCT)
    graph.opset_import.append(onnx.helper.make_opsetid(PRODUCT.domain, 1))
    return onnx.inliner.inline_local_functions(graph)


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
