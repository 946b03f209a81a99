"""`python -m benchmarks.studies.precision`: the speed and the cost of fp16 and int8 in ONNX Runtime on this CPU.

Speed is measured with random weights, on one thread; the precisions of an encoder take turns in one process. Cost is
measured with trained encoders: artifacts/methods/<method>/checkpoint.pt and data/prepared of project folders, which are
only read.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from benchmarks.report import markdown
from benchmarks.speed import timing
from data.shards import Prepared
from models.encoders.encoder import EncoderParams
from models.encoders.resnet import ResNetParams
from models.encoders.vit import ViTParams
from models.encoders.weights import restore
from models.evaluation import probe
from pipelines import export
from pipelines.evaluation.features import images
from pipelines.project.config import ProbeParams
from pipelines.release import precision_check, quantize
from pipelines.release.quantize import Lower
from serving.host.command import Parser

CPU = torch.device("cpu")
CASES: dict[str, tuple[EncoderParams, int]] = {
    "resnet18-32": (ResNetParams("resnet18", stem="small"), 32),
    "vit_tiny-4-32": (ViTParams("vit_tiny", 4), 32),
    "resnet50-224": (ResNetParams("resnet50"), 224),
    "vit_small-16-224": (ViTParams("vit_small", 16), 224),
}
BATCHES = (1, 8, 32)
ALONE = 128  # images that are embedded alone and among others, at most
Row = dict[str, Any]


def graphs(fp32: Path, calibration: list[torch.Tensor]) -> dict[str, Path]:
    """Precision → its graph, beside the one of fp32."""
    found = {"fp32": fp32}
    for precision in get_args(Lower):
        found[precision] = fp32.with_name(f"{precision}.onnx")
        quantize.lower(fp32, precision, calibration, found[precision])
    return found


def session(path: Path) -> onnxruntime.InferenceSession:
    """As an endpoint's worker has it: one thread, which does not spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # a graph of fp16 says twice what it cannot fold
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def speed(name: str, folder: Path) -> Iterator[Row]:
    """One row per batch size: images/s in fp32, and the speed of the others as a multiple of it."""
    params, size = CASES[name]
    torch.manual_seed(0)
    path = folder / "fp32.onnx"
    encoder = params.build(size, (0.5,) * 3, (0.25,) * 3)
    export.export(encoder, {"image_size": size, "preprocess": "{}"}, {}, path)
    pixels = torch.randint(0, 256, (max(BATCHES), 3, size, size), dtype=torch.uint8)
    found = graphs(path, [pixels])
    sessions = {precision: session(each) for precision, each in found.items()}
    for n in BATCHES:
        runs = {p: partial(s.run, None, {"images": pixels[:n].numpy()}) for p, s in sessions.items()}
        spent = timing.in_turn(runs, CPU)
        row: Row = {"encoder": name, "batch": n, "fp32, images/s": n / spent["fp32"]}
        row |= {f"{p}, times fp32": spent["fp32"] / spent[p] for p in get_args(Lower)}
        yield row | {f"{p}, MB": each.stat().st_size / 1e6 for p, each in found.items()}


def cost(project: Path, checkpoint: Path, folder: Path) -> Iterator[Row]:
    """One row per precision: the probe's accuracy on val, as `export` checks it."""
    prepared = Prepared(project / "data" / "prepared")
    kept = torch.load(checkpoint, weights_only=True)
    encoder, spec = restore(kept["spec"], kept["weights"]), kept["spec"]
    features = {split: probe.extract(encoder, images(prepared, split), CPU) for split in ("train", "val")}
    path = folder / "fp32.onnx"
    export.export(encoder, spec, {}, path)
    for precision, graph in graphs(path, list(images(prepared, "train", quantize.CALIBRATION))).items():
        low = quantize.embed(graph, images(prepared, "val"))
        found = precision_check.cost(low, features, prepared, ProbeParams.C)
        some = prepared.images(prepared.rows("val")[:ALONE])
        single = session(graph)
        one_by_one = np.concatenate([single.run(None, {"images": x[None]})[0] for x in some])
        yield {
            "encoder": f"{project.name}, {checkpoint.parent.name} ({spec['encoder']['arch']})",
            "precision": precision,
            "val": len(low),
            "reading": found.measure,
            "%": f"{found.lower:.1f}",
            "drop, points": f"{found.drop:.2f}",
            "smallest cosine to torch": f"{found.min_cosine:.5f}",
            "of alone to among 32": f"{cosines(low[:ALONE], one_by_one).min():.5f}",
            "MB": graph.stat().st_size / 1e6,
        }


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) of the rows of two (n, D)."""
    product: NDArray[np.float32] = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return product


def main() -> None:
    parser = Parser(prog="python -m benchmarks.studies.precision", description=__doc__)
    parser.add_argument(
        "projects", type=Path, nargs="*", help="folders with trained encoders (default: measure the speed)"
    )
    parser.add_argument(
        "--only", choices=CASES, nargs="+", default=list(CASES), help="encoders whose speed is measured"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{timing.machine(CPU)}, ONNX Runtime {onnxruntime.__version__}, one thread", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for project in given.projects:
            for checkpoint in sorted(project.glob("artifacts/methods/*/checkpoint.pt")):
                print(f"\n{markdown(list(cost(project, checkpoint, Path(scratch))))}", flush=True)
        for name in [] if given.projects else given.only:
            print(f"\n{markdown(list(speed(name, Path(scratch))))}", flush=True)


if __name__ == "__main__":
    main()
