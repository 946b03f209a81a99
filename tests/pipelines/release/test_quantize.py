"""fp16 and int8 graphs in ONNX Runtime: what stays as it is, what they cost, and what is refused."""

import json
import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from data.shards import Prepared
from models.encoders.encoder import EncoderParams
from models.encoders.resnet import ResNetParams
from models.encoders.vit import ViTParams
from models.evaluation import probe
from pipelines import export
from pipelines.evaluation.features import images
from pipelines.project.stage import StageError
from pipelines.release import quantize
from pipelines.release.precision_check import COSINE, Cost, cost
from pipelines.release.quantize import Lower
from tests.pipelines.conftest import prepare_small, write_digits

KINDS: dict[str, EncoderParams] = {
    "resnet": ResNetParams("resnet10", width=16, stem="small/2"),
    "vit": ViTParams("vit_nano", 4, pool="mean"),
}
GRID = (0.1, 1.0, 10.0)
ONE = 100 / 179  # an image of val, in points


@dataclass(frozen=True)
class Exported:
    graph: Path  # fp32
    prepared: Prepared
    features: dict[str, NDArray[np.float32]]  # torch's
    described: dict[str, Any]

    def lower(self, precision: Lower, shade: float = 1.0) -> Path:
        """In a lower precision; int8 calibrated on training images that are darker by this factor."""
        out = self.graph.with_name(f"{precision}-{shade}.onnx")
        shaded = ((x * shade).byte() for x in images(self.prepared, "train", 64))
        quantize.lower(self.graph, precision, shaded, out)
        return out

    def cost(self, graph: Path, prepared: Prepared | None = None) -> Cost:
        val = quantize.embed(graph, images(self.prepared, "val"))
        return cost(val, self.features, prepared or self.prepared, GRID)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """All digits, of which val has 179."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder / "raw", 1797, labelled=True)
    prepare_small(folder / "raw", folder / "prepared")
    return Prepared(folder / "prepared")


@pytest.fixture(scope="module")
def exported(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Of a kind: an encoder that is not trained; a ResNet's batch norm is calibrated."""

    @cache
    def of(kind: str) -> Exported:
        torch.manual_seed(0)
        m = prepared.manifest
        encoder = KINDS[kind].build(16, m.mean, m.std)
        for name, p in encoder.named_parameters():
            if name.endswith("bias"):  # a fresh ViT's are 0, which would hide what a scale does to them
                torch.nn.init.normal_(p, std=0.1)
        probe.calibrate(encoder, images(prepared, "train"))
        features = {s: probe.extract(encoder, images(prepared, s), torch.device("cpu")) for s in ("train", "val")}
        path = tmp_path_factory.mktemp(kind) / "encoder.onnx"
        described = {"dataset": "digits", "method": "simclr", "version": "3"}
        export.export(encoder, {"image_size": 16, "preprocess": m.preprocess.to_json()}, described, path)
        return Exported(path, prepared, features, described)

    return of


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_lower_precision_is_served_as_fp32_is_and_agrees_with_it(
    exported: Callable[[str], Exported], kind: str, precision: Lower
) -> None:
    fp32 = exported(kind)
    path = fp32.lower(precision)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,), (returned,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", 3, 16, 16])
    assert (returned.name, returned.type) == ("embeddings", "tensor(float)")
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["model"]).items() >= fp32.described.items()
    assert json.loads(metadata["preprocess"])["size"] == 16
    for n in (1, 2, 7):
        pixels = fp32.prepared.images(fp32.prepared.rows("val")[:n])
        assert session.run(None, {"images": pixels})[0].shape == (n, fp32.features["val"].shape[1])
    assert path.stat().st_size < (0.65 if precision == "fp16" else 0.4) * fp32.graph.stat().st_size
    found = fp32.cost(path)
    assert found.measure == "linear probe"
    assert found.in_fp32 > 60  # chance is 10
    assert abs(found.drop) < 3 * ONE
    assert found.min_cosine >= COSINE[precision]


@pytest.mark.parametrize(
    ("kind", "there", "absent"),
    [
        ("resnet", {"QuantizeLinear", "DequantizeLinear", "Conv"}, {"DynamicQuantizeLinear"}),
        ("vit", {"QuantizeLinear", "MatMulIntegerToFloat", "Conv"}, {"DynamicQuantizeLinear", "ConvInteger"}),
    ],
)
def test_int8_is_static_for_a_resnet_dynamic_for_a_vit_and_a_weight_has_a_scale_a_channel(
    exported: Callable[[str], Exported], kind: str, there: set[str], absent: set[str]
) -> None:
    graph = onnx.load(exported(kind).lower("int8")).graph
    operators = {node.op_type for node in graph.node}
    assert there <= operators
    assert not absent & operators
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    bytes_ = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    weights = {name: t.dims for name, t in tensors.items() if t.data_type in bytes_ and len(t.dims) > 1}
    assert len(weights) == {"resnet": 12, "vit": 16}[kind]
    for name, shape in weights.items():
        channels = shape[0] if kind == "resnet" else shape[1]
        assert list(tensors[name.replace("_quantized", "_scale")].dims) == [channels]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_vector_does_not_depend_on_the_neighbours_in_the_batch(
    exported: Callable[[str], Exported], kind: str, precision: Literal["fp32", "fp16", "int8"]
) -> None:
    fp32 = exported(kind)
    path = fp32.graph if precision == "fp32" else fp32.lower(precision)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    pixels = fp32.prepared.images(fp32.prepared.rows("val")[:32])
    alone = np.concatenate([session.run(None, {"images": pixels[i : i + 1]})[0] for i in range(32)])
    allowed = 1e-5 * np.abs(alone).max()
    np.testing.assert_allclose(session.run(None, {"images": pixels})[0], alone, rtol=0, atol=allowed)
    for others in (pixels[1:] // 8, 255 - pixels[1:]):
        together = session.run(None, {"images": np.concatenate([pixels[:1], others])})[0]
        np.testing.assert_allclose(together[:1], alone[:1], rtol=0, atol=allowed)


def test_a_product_is_rounded_to_127_steps_a_token_and_63_a_column(tmp_path: Path) -> None:
    """By hand, with the bias behind it that no scale may touch; a token of zeros is zeros."""
    x = np.array([[1.0, -0.5, 0.0], [0.003, 0.001, -0.254], [0.0, 0.0, 0.0]], np.float32)
    weight = np.array([[6.3, 0.0], [1.04, -0.63], [-6.3, 0.314]], np.float32)
    graph = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["": 18, "com.microsoft": 1]>
        product (float[N, 3] x) => (float[N, 2] y) <float[3, 2] weight, float[2] bias = {5, -7}>
        { z = MatMul (x, weight)  y = Add (z, bias) }""")
    graph.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    onnx.save(quantize.by_tokens(graph), tmp_path / "product.onnx")
    (y,) = onnxruntime.InferenceSession(tmp_path / "product.onnx").run(None, {"x": x})
    steps = np.array([[127, -64, 0], [2, 0, -127], [0, 0, 0]]) * [[1 / 127], [0.002], [0]]  # -63.5 is even at -64
    rounded = np.array([[63, 0], [10, -63], [-63, 31]]) * [0.1, 0.01]
    np.testing.assert_allclose(y, steps @ rounded + [5, -7], rtol=0, atol=1e-5)


def test_a_graph_that_was_calibrated_on_the_wrong_images_is_refused(
    exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    fp32 = exported("resnet")
    right, wrong = fp32.lower("int8"), fp32.lower("int8", shade=0.3)
    figures = (
        r"\d+\.\d %, \d+\.\d points less than the \d+\.\d % in fp32\. Allowed: 0\.5\. Set export\.precision: fp32 .*"
    )
    with pytest.raises(StageError, match=rf"^Export in int8 costs too much: linear probe on val is {figures}\.$"):
        fp32.cost(wrong).check("int8")
    shutil.copytree(fp32.prepared.folder, tmp_path / "prepared")
    index = tmp_path / "prepared" / "index.csv"
    head, *rows = index.read_text().splitlines()
    index.write_text("\n".join([head, *(",".join([*r.split(",")[:2], "", *r.split(",")[3:]]) for r in rows)]) + "\n")
    unlabelled = Prepared(tmp_path / "prepared")
    good = fp32.cost(right, unlabelled)
    assert (good.measure, good.in_fp32, good.drop) == ("retrieval", 100, 0)
    with pytest.raises(StageError, match=rf"^Export in int8 costs too much: retrieval on val is {figures}\.$"):
        fp32.cost(wrong, unlabelled).check("int8")


@pytest.mark.parametrize(
    ("lower", "cosine", "sentence"),
    [
        (99.5, 0.995, None),
        (99.4, 0.995, "0.6 points less than the 100.0 % in fp32. Allowed: 0.5"),
        (100.0, 0.98, "its cosine to the one in fp32 is 0.9800. Allowed: 0.99 or more"),
        (math.nan, 0.995, "nan points less"),
        (100.0, math.nan, "in fp32 is nan"),
    ],
)
def test_what_a_precision_may_cost(lower: float, cosine: float, sentence: str | None) -> None:
    with nullcontext() if sentence is None else pytest.raises(StageError, match=sentence) as caught:
        Cost("linear probe", 100.0, lower, cosine).check("int8")
    assert caught is None or "\n" not in str(caught.value)
