"""Every way to a vector answers as torch does: the exported, registered and served encoders."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from data.decoding.decode import Preprocess
from data.shards import Prepared
from models import saved
from models.encoders.weights import restore
from serving.client import Client
from serving.deploy import deploy
from serving.host.runtime import Runtime
from serving.torchserve.process import Server
from tests.flows.project import Flows
from tests.pipelines.small_project import METHODS, ROOT, Project


def test_parity_is_small_and_the_archive_holds_what_serves(flows: Flows) -> None:
    for method in METHODS:
        parity = flows.json(method, "parity.json")
        assert parity["batches"].keys() == {"1", "2", "7"}
        assert parity["max_relative_difference"] <= 1e-4
        assert parity["min_cosine"] >= 0.9999
        with zipfile.ZipFile(flows.project.artifact(method, "encoder.mar")) as archive:
            assert {"handler.py", "data/decoding/decode.py", "encoder.onnx"} <= set(archive.namelist())
            assert (
                archive.read("data/decoding/decode.py")
                == (flows.project.root / "data" / "decoding" / "decode.py").read_bytes()
            )
            assert archive.read("encoder.onnx") == flows.project.artifact(method, "encoder.onnx").read_bytes()


def trained(flows: Flows, method: str) -> tuple[Preprocess, saved.Predictor]:
    checkpoint = torch.load(flows.project.artifact(method, "checkpoint.pt"), weights_only=True)
    encoder = restore(checkpoint["spec"], checkpoint["weights"])
    return Preprocess.from_json(checkpoint["spec"]["preprocess"]), saved.Predictor(encoder)


PREDICT = """
import sys
uri, images, out, *blocked = sys.argv[1:]
sys.modules |= dict.fromkeys(blocked)
import mlflow, numpy
answer = mlflow.pyfunc.load_model(uri).predict(numpy.load(images))
numpy.save(out, answer["embeddings"] if isinstance(answer, dict) else answer)
assert not {name for name in blocked if sys.modules.get(name)}
"""


@pytest.mark.parametrize(("uri", "blocked"), [("digits-encoder", []), ("digits-encoder-onnx", ["torch", "models"])])
def test_the_registered_champion_predicts_outside_the_project(
    flows: Flows, uri: str, blocked: list[str], tmp_path: Path
) -> None:
    prepared = Prepared(flows.project.root / "data" / "prepared")
    images = prepared.images(prepared.rows("test")[:9])
    np.save(tmp_path / "images.npy", images)
    store = f"sqlite:///{flows.project.root}/mlflow.db"
    outside = Project(tmp_path)
    done = outside.run(
        "-c", f"import os; os.environ['MLFLOW_TRACKING_URI'] = {store!r}\n{PREDICT}",
        f"models:/{uri}@champion", "images.npy", "out.npy", *blocked,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _, predictor = trained(flows, flows.json("promoted.json")["champion"])
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), predictor.predict(images), rtol=1e-4, atol=1e-5)


def test_every_way_to_a_vector_leads_to_that_of_torch(flows: Flows, tmp_path: Path, photo: Image.Image) -> None:
    for name, data in files(photo).items():
        (tmp_path / f"{name}.{'jpg' if 'jpeg' in name else 'png'}").write_bytes(data)
    done = flows.project.run("-m", "benchmarks.endpoint.agreement", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = [row.split(" | ") for row in done.stdout.splitlines()[4:]]
    ways = ["ONNX Runtime", "TorchServe", "FastAPI", "bulk command", "digits-encoder", "digits-encoder-onnx"]
    assert [row[0].rpartition(", ")[2].removeprefix("| ") for row in rows] == ways
    for _, _, share, cosine in rows:
        assert float(share) <= 1e-4
        assert float(cosine.rstrip("| ")) >= 0.9999


def test_a_registered_encoder_can_be_trained_on(flows: Flows) -> None:
    program = (
        "import torch\n"
        "from models import saved\n"
        "from pipelines.registry import mlflow_store\n"
        "spec, encoder = saved.load(mlflow_store.download('models:/digits-encoder@mae'))\n"
        "before = {k: v.clone() for k, v in encoder.state_dict().items()}\n"
        "optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], 0.1)\n"
        "s = spec['image_size']\n"
        "encoder.train()(torch.randint(256, (4, 3, s, s), dtype=torch.uint8)).square().sum().backward()\n"
        "optimizer.step()\n"
        "print(spec['method'], any(not torch.equal(v, before[k]) for k, v in encoder.state_dict().items()))\n"
    )
    assert flows.project.run("-c", program).stdout.split() == ["mae", "True"]


@pytest.fixture(scope="module")
def endpoint(flows: Flows, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """TorchServe with the project's archives."""
    folder = tmp_path_factory.mktemp("endpoint")
    with Server(Runtime(folder / "run"), free_ports=True) as started:
        deploy(flows.project.root / "artifacts" / "promoted.json", started.runtime)
        yield Client.of(started.runtime)


@pytest.fixture(scope="module")
def photo(flows: Flows) -> Image.Image:
    """A photograph where the repository's sibling folder has one, else a digit of 96 px."""
    photos = ROOT.parent / "shared" / "datasets" / "clothing.zip"
    if photos.exists():
        with zipfile.ZipFile(photos) as archive:
            name = min(n for n in archive.namelist() if n.endswith(".jpg"))
            return Image.open(io.BytesIO(archive.read(name))).convert("RGB")
    path = min((flows.project.root / "data" / "raw" / "digits").rglob("*.png"))
    return Image.open(path).convert("RGB").resize((96, 80), Image.Resampling.BICUBIC)


def files(photo: Image.Image) -> dict[str, bytes]:
    """One picture in the forms that people have: JPEG, PNG, grey, with an alpha channel, and on its side."""
    sideways = Image.Exif()
    sideways[0x0112] = 6  # shown after a quarter turn clockwise
    ways: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "jpeg": (photo, "JPEG", {"quality": 90}),
        "png": (photo, "PNG", {}),
        "grey": (photo.convert("L"), "PNG", {}),
        "alpha": (photo.convert("RGBA"), "PNG", {}),
        "sideways": (photo.transpose(Image.Transpose.ROTATE_90), "PNG", {"exif": sideways}),
        "sideways-jpeg": (photo.transpose(Image.Transpose.ROTATE_90), "JPEG", {"exif": sideways}),
    }
    written = {}
    for name, (image, kind, more) in ways.items():
        file = io.BytesIO()
        image.save(file, kind, **more)
        written[name] = file.getvalue()
    return written


@pytest.mark.parametrize("name", ["digits-encoder", *(f"digits-{m}" for m in METHODS)])
def test_the_endpoint_answers_as_torch_does(flows: Flows, endpoint: Client, photo: Image.Image, name: str) -> None:
    methods = {model["name"]: model["method"] for model in flows.json("promoted.json")["models"]}
    preprocess, predictor = trained(flows, methods[name])
    vectors: dict[str, NDArray[np.float32]] = {}
    for kind, data in files(photo).items():
        vectors[kind] = endpoint.embed(name, data)
        (ours,) = predictor.predict(preprocess(data)[None])
        cosine = float(ours @ vectors[kind] / (np.linalg.norm(ours) * np.linalg.norm(vectors[kind])))
        assert cosine >= 0.9999, (kind, cosine)
        np.testing.assert_allclose(vectors[kind], ours, atol=1e-4 * np.abs(ours).max(), err_msg=kind)
    for kind in ("alpha", "sideways"):  # the same picture, whatever way it is written
        np.testing.assert_allclose(vectors[kind], vectors["png"], rtol=1e-5, atol=1e-6)
    assert not np.allclose(vectors["grey"], vectors["png"], rtol=1e-3) or photo.convert("L").convert("RGB") == photo
