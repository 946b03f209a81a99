"""The whole line in a project of its own, as its user sees it: broken, mended, run again, changed and changed back."""

import hashlib
import io
import json
import pickletools
import re
import shutil
import sqlite3
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from numpy.typing import NDArray
from PIL import Image

from data.decoding.decode import Preprocess
from data.shards import Prepared
from models import saved
from models.methods import CONTROLS
from pipelines.project.history import read_history, trained_seconds
from serving.client import Client
from serving.deploy import deploy
from serving.host.runtime import Runtime
from serving.torchserve.process import Server
from tests.browser import check, look, needs_chromium
from tests.pipelines.small_project import METHODS, ROOT, Project, git, make

STAGES = ("pretrain", "probe", "finetune", "register", "export", "archive")
EVERY = {"download@digits", "prepare", "promote", "report"}
EVERY |= {f"{stage}@{m}" for stage in STAGES for m in METHODS} | {f"control@{c}" for c in CONTROLS}
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Line:
    """A project after four commands, and what each of them said."""

    project: Project
    broken: Done
    mended: Done
    again: Done
    changed: Done
    before: tuple[int, int]  # runs and versions in MLflow before `again`
    after: tuple[int, int]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.project.root}/mlflow.db")

    def json(self, *parts: str) -> Any:
        return json.loads(self.project.root.joinpath("artifacts", *parts).read_text())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """From Prefect's database."""
        with sqlite3.connect(self.project.root / ".prefect" / "prefect.db") as database:
            return database.execute(query).fetchall()

    def tasks(self, flow: int) -> dict[str, str]:
        """Task run → state, of the flow run of that number."""
        (run,) = self.rows(f"select id from flow_run order by created limit 1 offset {flow}")[0]
        named = self.rows(f"select name, state_name from task_run where flow_run_id = '{run}'")
        assert len(dict(named)) == len(named)
        return dict(named)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """DINO cannot learn at first; then it can; then nothing is new; then another figure promotes, through DVC alone."""
    project = make(tmp_path_factory.mktemp("line"))
    lr = 1e-3
    project.set({"dino.optim.lr": 1e30})
    broken = project.flow()
    project.set({"dino.optim.lr": lr})
    mended = project.flow()
    before = count(project)
    again = project.flow()
    after = count(project)
    project.set({"promote.for": "finetuning"})
    project.dvc("repro")
    changed = project.flow()
    project.set({"promote.for": "embeddings"})
    project.dvc("repro")
    return Line(project, broken, mended, again, changed, before, after)


def count(project: Project) -> tuple[int, int]:
    with sqlite3.connect(project.root / "mlflow.db") as database:
        tables = ("runs", "model_versions")
        runs, versions = (database.execute(f"select count(*) from {t}").fetchone()[0] for t in tables)
    return runs, versions


def shown(done: Done) -> dict[str, list[str]]:
    """Stage → the lines that the flow printed of it."""
    lines: dict[str, list[str]] = {}
    for text in done.stdout.splitlines():
        name, *rest = text.split(maxsplit=1)[:2] if text.split() else [""]
        lines.setdefault(name, []).append("".join(rest))
    return lines


def test_a_stage_that_fails_has_the_last_word_and_stops_only_its_dependants(line: Line) -> None:
    assert line.broken.returncode == 1
    last = line.broken.stderr.strip().splitlines()[-1]
    why = r"diverged: the loss( of held-out images)? is (nan|inf) at step \d+ of \d+; lower dino\.optim\.lr"
    assert re.match(f"pretrain@dino: {why}", last)
    assert "Traceback" not in line.broken.stdout + line.broken.stderr
    stages = shown(line.broken).keys()
    assert {f"{stage}@{m}" for stage in STAGES for m in ("simclr", "mae")} <= stages
    assert not {"promote", "report", *(f"{stage}@dino" for stage in STAGES if stage != "pretrain")} & stages
    states = line.tasks(0)
    assert states["pretrain@dino"] == "Failed"
    assert {states[name] for name in EVERY if name.endswith("@simclr")} == {"Completed"}
    assert {states.get(name) for name in ("probe@dino", "promote")} <= {"NotReady", "Pending", None}


def test_the_mended_flow_does_only_what_was_missing(line: Line) -> None:
    assert line.mended.returncode == 0, line.mended.stderr
    new = {"promote", "report", *(f"{stage}@dino" for stage in STAGES)}
    states = line.tasks(1)
    assert {name for name, state in states.items() if state == "Completed"} == new | {"deploy", "plan"}
    assert {name for name, state in states.items() if state == "Unchanged"} == EVERY - new


def test_the_flow_ends_with_table_answer_and_the_line_to_type(line: Line) -> None:
    said = line.mended.stdout
    (answer,) = re.findall(r"^the endpoint answers (.*)$", said, re.MULTILINE)
    promoted = line.json("promoted.json")
    encoder = re.escape(f'"model": "digits-encoder", "version": "{promoted["models"][0]["version"]}"')
    assert re.search(rf'"image": "data/raw/digits/\d/\d+\.png", {encoder}, "dim": \d+, "embedding": \[', answer)
    assert re.search(r"^smallest cosine to torch over every endpoint: (1\.0|0\.9999)", said, re.MULTILINE)
    assert re.search(r'curl -H "Authorization: Bearer .*-T IMAGE http.*/predictions/digits-encoder$', said.strip())
    for method in METHODS:
        for who in (method, f"random-{method}", "pixels"):
            f = line.json(method, "metrics.json")[who]
            few = rf"{f['linear_1']:.1f} ± {f['linear_1_sd']:.1f}"
            assert re.search(rf"^{who} +linear probe +{few} .*{f['linear_all']:.1f} *$", said, re.MULTILINE)
            assert re.search(rf"^{who} +kNN .*{f['knn_all']:.1f} *$", said, re.MULTILINE)
        tuned = line.json(method, "finetune.json")[method]["finetune_all"]
        assert re.search(rf"^{method} +fine-tuned .*{tuned:.1f} *$", said, re.MULTILINE)


def test_running_it_again_does_nothing(line: Line) -> None:
    assert line.again.returncode == 0, line.again.stderr
    assert {name for name, lines in shown(line.again).items() if lines[0] == "unchanged"} == EVERY
    assert line.tasks(2) == dict.fromkeys(EVERY, "Unchanged") | {"deploy": "Completed"}
    assert line.before == line.after


def test_dvc_alone_and_the_flow_know_of_each_other(line: Line) -> None:
    assert line.changed.returncode == 0, line.changed.stderr
    assert line.tasks(3) == dict.fromkeys(EVERY, "Unchanged") | {"deploy": "Completed"}
    assert line.project.dvc("repro", "--dry").stdout.count("didn't change, skipping") == len(EVERY)
    assert json.loads(line.project.dvc("status", "report", "--with-deps", "--json").stdout) == {}


def test_a_colleagues_clone_has_everything_and_nothing_to_do(line: Line, tmp_path: Path) -> None:
    """`git clone`, `dvc pull`, `dvc checkout` and `dvc status` end with 0; no set that nobody asked for is missed."""
    line.project.dvc("remote", "add", "--force", "--local", "--default", "store", str(tmp_path / "store"))
    assert line.project.dvc("push").returncode == 0
    git(tmp_path, "clone", "--quiet", str(line.project.root), "clone")
    clone = Project(tmp_path / "clone")
    for name in ("dvc.lock", "params.yaml"):  # as if they had been committed
        shutil.copyfile(line.project.root / name, clone.root / name)
    clone.dvc("remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    for command in ("pull", "checkout"):
        done = clone.dvc(command)
        assert done.returncode == 0, done.stderr
    assert clone.dvc("status").stdout == "Data and pipelines are up to date.\n"
    assert line.project.dvc("status").stdout == "Data and pipelines are up to date.\n"


def test_prefect_keeps_the_table(line: Line) -> None:
    tables = line.rows("select data from artifact where type = 'table' and key = 'digits-results'")
    rows = json.loads(json.loads(tables[-1][0]))
    assert {row["encoder"] for row in rows} == finished(line).keys()
    assert rows[0]["all labels"] == f"{line.json('simclr', 'metrics.json')['simclr']['linear_all']:.1f}"


def finished(line: Line) -> dict[str, Run]:
    client = line.client
    where = client.get_experiment_by_name("digits").experiment_id
    runs = client.search_runs([where], "attributes.status = 'FINISHED'")
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def test_mlflow_holds_a_run_a_method_and_a_control_with_its_figures(line: Line) -> None:
    runs = finished(line)
    controls = {who: f for name in CONTROLS for who, f in line.json(name, "metrics.json").items()}
    own = {*METHODS, *(who for m in METHODS for who in (f"random-{m}", f"{m}-pseudolabel")), "pixels"}
    assert runs.keys() == own | controls.keys()
    assert {"supervised-simclr", "fixmatch-mae"} <= controls.keys()
    assert all(figures.items() <= runs[who].data.metrics.items() for who, figures in controls.items())
    for m in METHODS:
        for file in ("metrics.json", "finetune.json"):
            for who, figures in line.json(m, file).items():
                logged = {k: v for k, v in figures.items() if k not in {"seconds", "images"} or who != m}
                assert logged.items() <= runs[who].data.metrics.items()
        assert runs[m].data.metrics["finetune_seconds"] == line.json(m, "finetune.json")[m]["seconds"]
        assert runs[m].data.tags["diagnosis"] == line.json(m, "diagnosis.json")["name"]


def test_the_run_that_failed_says_so_and_none_is_left_running(line: Line) -> None:
    client = line.client
    where = client.get_experiment_by_name("digits").experiment_id
    others = client.search_runs([where], "attributes.status != 'FINISHED'")
    assert [(run.info.run_name, run.info.status) for run in others] == [("dino", "FAILED")]


@pytest.mark.parametrize("method", METHODS)
def test_mlflow_holds_the_history_as_it_was_written(line: Line, method: str) -> None:
    run = finished(line)[method]
    history = [json.loads(row) for row in line.project.artifact(method, "history.jsonl").read_text().splitlines()]
    assert "effective_rank" in history[0]  # which not every row has
    for name in set().union(*history) - {"step"}:
        logged = line.client.get_metric_history(run.info.run_id, name)
        assert [(m.step, m.value) for m in logged] == [(row["step"], row[name]) for row in history if name in row]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_lasts_as_long_as_its_training_did(line: Line, method: str) -> None:
    """Not until it was registered, after all that was trained beside it."""
    info = finished(line)[method].info
    history = read_history(line.project.artifact(method, "history.jsonl"))
    params = yaml.safe_load((line.project.root / "params.yaml").read_text())
    lasted = trained_seconds(history, params[method]["batch_size"])
    assert info.end_time - info.start_time == round(1000 * lasted)


def test_mlflows_page_begins_with_the_verdict_and_the_table(line: Line) -> None:
    (found,) = line.client.search_experiments(filter_string="name = 'digits'")
    note = found.tags["mlflow.note.content"]
    verdict, table = note.split("Top-1 on the test split", 1)
    assert re.search(r"Training went well|Not every training went well", verdict)
    assert "| encoder | read by | 1 label | 5 labels | all labels |" in table
    assert len(re.findall(r"^\| simclr \| linear probe \|", table, re.MULTILINE)) == 1


def test_a_run_says_of_what_data_code_and_packages_it_is(line: Line) -> None:
    raw = re.search(
        r"path: data/raw/digits\n\s+hash: md5\n\s+md5: (\w+)\.dir", (line.project.root / "dvc.lock").read_text()
    )
    lock = hashlib.sha256((line.project.root / "requirements.lock").read_bytes()).hexdigest()
    commit = git(line.project.root, "rev-parse", "HEAD").strip()
    assert raw
    for method in METHODS:
        run = finished(line)[method]
        (used,) = run.inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("digits", f"{raw[1]}.dir"[:36])
        assert run.data.tags["lock_digest"] == lock
        assert run.data.tags["git_commit"].removesuffix("-dirty") == commit


def test_versions_have_aliases_and_their_onnx_twin(line: Line) -> None:
    champion = line.json("promoted.json")["champion"]
    for alias in (*METHODS, "champion"):
        ours = line.client.get_model_version_by_alias("digits-encoder", alias)
        twin = line.client.get_model_version_by_alias("digits-encoder-onnx", alias)
        assert ours.tags["method"] == twin.tags["method"] == (champion if alias == "champion" else alias)
        assert (ours.tags["onnx_version"], twin.tags["encoder_version"]) == (str(twin.version), str(ours.version))
        receipt = line.json(ours.tags["method"], "version.json")
        assert (str(ours.version), ours.run_id) == (receipt["version"], receipt["run_id"])


def test_the_champion_is_read_on_val_as_it_will_be_used(line: Line) -> None:
    read = {m: line.json(m, "metrics.json")[m]["val_linear_1"] for m in METHODS}
    promoted = line.json("promoted.json")
    ranked = sorted(METHODS, key=lambda m: -read[m])
    index = (line.project.root / "data" / "prepared" / "index.csv").read_text().splitlines()
    images = sum(",val," in row for row in index)
    assert promoted["reason"].startswith(
        f"linear probe of frozen features with 1 label a class on {images} images of val: "
        + ", ".join(f"{m} {read[m]:.1f}" for m in ranked)
    )
    assert promoted["champion"] == ranked[0] or f"{promoted['champion']} is within one standard" in promoted["reason"]
    for model in promoted["models"]:
        data = (line.project.root / model["archive"]).read_bytes()
        assert model["sha256"] == hashlib.sha256(data).hexdigest()
    served = {model["name"]: model["method"] for model in promoted["models"]}
    assert served == {f"digits-{m}": m for m in METHODS} | {"digits-encoder": promoted["champion"]}


def test_going_back_to_earlier_params_takes_mlflow_along(line: Line) -> None:
    champion = line.client.get_model_version_by_alias("digits-encoder", "champion")
    assert champion.tags["promoted_because"] == line.json("promoted.json")["reason"]


def test_mlflow_holds_the_pictures_and_the_page(line: Line) -> None:
    champion = line.json("promoted.json")["champion"]
    for method in METHODS:
        run = line.json(method, "version.json")["run_id"]
        kept = {item.path for item in line.client.list_artifacts(run, "pictures")}
        assert {f"pictures/{name}.png" for name in ("neighbours", "views", "map", "loss")} <= kept
        if method == "mae":
            assert {f"pictures/{name}.png" for name in ("attention", "75% hidden", "75% filled in")} <= kept
        if method == champion:
            page = Path(line.client.download_artifacts(run, "report.html"))
            assert page.read_bytes() == (line.project.root / "artifacts" / "report.html").read_bytes()


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1440, False), (1440, True)])
def test_the_report_opens_with_the_verdict_and_can_be_read(line: Line, tmp_path: Path, width: int, dark: bool) -> None:
    page = (line.project.root / "artifacts" / "report.html").read_text(encoding="utf-8")
    seen = look(page, tmp_path, width, dark)
    check(seen, width, dark)
    assert len(page) < 3e6
    _, *verdict = seen.text.splitlines()[:4]
    assert all(sentence in line.mended.stdout for sentence in verdict)
    assert "What MAE fills in" in seen.text
    assert seen.charts > 10
    assert len(seen.images) > 10


def test_dvc_draws_the_figures_of_the_page(line: Line) -> None:
    done = line.project.dvc("plots", "show", "--json")
    assert done.returncode == 0, done.stderr
    plots = json.loads(done.stdout)["data"]
    assert plots.keys() == {"label efficiency", "training", "confusion of the champion"}
    page = (line.project.root / "artifacts" / "report.html").read_text(encoding="utf-8")
    points = plots["label efficiency"][0]["content"]["data"]["values"]
    assert all(f"{p['accuracy']:.1f}" in page for p in points)
    losses = [p for p in plots["training"][0]["content"]["data"]["values"] if p["signal"] == "loss"]
    assert {p["method"] for p in losses} == set(METHODS)


def test_nothing_in_the_store_is_pickled(line: Line) -> None:
    files = [path for path in (line.project.root / "mlruns").rglob("*") if path.is_file()]
    assert any(path.name == "weights.safetensors" for path in files)
    for path in files:
        data = path.read_bytes()
        assert path.suffix not in {".pkl", ".pickle", ".pth", ".pt", ".pt2", ".joblib"}
        assert not zipfile.is_zipfile(path), path
        assert not is_pickle(data), path
        assert b"cloudpickle" not in data, path


def is_pickle(data: bytes) -> bool:
    try:
        return sum(1 for _ in pickletools.genops(io.BytesIO(data))) > 0
    except Exception:  # it raises nearly anything on bytes that are no pickle
        return False


def test_the_scan_for_pickles_finds_one(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "a", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.zeros(1)}, tmp_path / "b")
    assert is_pickle((tmp_path / "a").read_bytes())
    assert zipfile.is_zipfile(tmp_path / "b")


def test_parity_is_small_and_the_archive_holds_what_serves(line: Line) -> None:
    for method in METHODS:
        parity = line.json(method, "parity.json")
        assert parity["batches"].keys() == {"1", "2", "7"}
        assert parity["max_relative_difference"] <= 1e-4
        assert parity["min_cosine"] >= 0.9999
        with zipfile.ZipFile(line.project.artifact(method, "encoder.mar")) as archive:
            assert {"handler.py", "data/decoding/decode.py", "encoder.onnx"} <= set(archive.namelist())
            assert archive.read("data/decoding/decode.py") == (line.project.root / "data" / "decode.py").read_bytes()
            assert archive.read("encoder.onnx") == line.project.artifact(method, "encoder.onnx").read_bytes()


def trained(line: Line, method: str) -> tuple[Preprocess, saved.Predictor]:
    checkpoint = torch.load(line.project.artifact(method, "checkpoint.pt"), weights_only=True)
    encoder = saved.restore(checkpoint["spec"], checkpoint["weights"])
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
    line: Line, uri: str, blocked: list[str], tmp_path: Path
) -> None:
    prepared = Prepared(line.project.root / "data" / "prepared")
    images = prepared.images(prepared.rows("test")[:9])
    np.save(tmp_path / "images.npy", images)
    store = f"sqlite:///{line.project.root}/mlflow.db"
    outside = Project(tmp_path)
    done = outside.run(
        "-c", f"import os; os.environ['MLFLOW_TRACKING_URI'] = {store!r}\n{PREDICT}",
        f"models:/{uri}@champion", "images.npy", "out.npy", *blocked,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _, predictor = trained(line, line.json("promoted.json")["champion"])
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), predictor.predict(images), rtol=1e-4, atol=1e-5)


def test_every_way_to_a_vector_leads_to_that_of_torch(line: Line, tmp_path: Path, photo: Image.Image) -> None:
    for name, data in files(photo).items():
        (tmp_path / f"{name}.{'jpg' if 'jpeg' in name else 'png'}").write_bytes(data)
    done = line.project.run("-m", "benchmarks.endpoint.agreement", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = [row.split(" | ") for row in done.stdout.splitlines()[4:]]
    ways = ["ONNX Runtime", "TorchServe", "FastAPI", "bulk command", "digits-encoder", "digits-encoder-onnx"]
    assert [row[0].rpartition(", ")[2].removeprefix("| ") for row in rows] == ways
    for _, _, share, cosine in rows:
        assert float(share) <= 1e-4
        assert float(cosine.rstrip("| ")) >= 0.9999


def test_a_registered_encoder_can_be_trained_on(line: Line) -> None:
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
    assert line.project.run("-c", program).stdout.split() == ["mae", "True"]


@pytest.fixture(scope="module")
def endpoint(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """TorchServe with the project's archives."""
    folder = tmp_path_factory.mktemp("endpoint")
    with Server(Runtime(folder / "run"), free_ports=True) as started:
        deploy(line.project.root / "artifacts" / "promoted.json", started.runtime)
        yield Client.of(started.runtime)


@pytest.fixture(scope="module")
def photo(line: Line) -> Image.Image:
    """A photograph where the repository's sibling folder has one, else a digit of 96 px."""
    photos = ROOT.parent / "shared" / "datasets" / "clothing.zip"
    if photos.exists():
        with zipfile.ZipFile(photos) as archive:
            name = min(n for n in archive.namelist() if n.endswith(".jpg"))
            return Image.open(io.BytesIO(archive.read(name))).convert("RGB")
    path = min((line.project.root / "data" / "raw" / "digits").rglob("*.png"))
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
def test_the_endpoint_answers_as_torch_does(line: Line, endpoint: Client, photo: Image.Image, name: str) -> None:
    methods = {model["name"]: model["method"] for model in line.json("promoted.json")["models"]}
    preprocess, predictor = trained(line, methods[name])
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
