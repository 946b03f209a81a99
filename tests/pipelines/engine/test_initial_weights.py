"""Training that starts from weights: whose they become, what is said, and what is refused."""

import hashlib
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import CheckpointError, methods, saved
from models.encoders import encoder as encoders
from models.encoders.normalize import PUBLISHED, Normalization
from models.encoders.resnet import ResNet, ResNetParams
from models.encoders.vit import ViT, ViTParams
from models.methods import Method, MethodParams
from models.methods.dino import DINO
from pipelines import pretrain
from pipelines.engine.initial_weights import apply, init_digest
from pipelines.machine.hardware import Setting
from pipelines.project import config
from pipelines.project.parse import ConfigError
from tests.models.conftest import MEAN, STD
from tests.models.methods.test_methods import PARAMS
from tests.pipelines.small_project import METHODS, ROOT, Project
from tests.pipelines.test_pretrain import BARE

OTHERS = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)  # mean and std of the data that the weights were trained on
STILL = {"mae.optim.lr": 1e-30, "mae.optim.weight_decay": 0.0, "mae.epochs": 1}  # a step that changes no weight


def weights(params: ResNetParams | ViTParams, size: int = 16) -> dict[str, Tensor]:
    torch.manual_seed(7)
    return encoders.build(params, size, *OTHERS).state_dict()


def bare(params: ResNetParams | ViTParams, size: int = 16) -> dict[str, Tensor]:
    return {k: v for k, v in weights(params, size).items() if not k.startswith("normalize.")}


def starting_from(name: str, init: Path | str | None, normalize: Normalization = "auto") -> MethodParams:
    params = PARAMS[name]
    return replace(params, encoder=replace(params.encoder, init=init and str(init), normalize=normalize))  # type: ignore[arg-type]


def begin(name: str, params: MethodParams) -> tuple[Method, str | None]:
    method = methods.build(name, params, 16, MEAN, STD, seed=0)
    return method, apply(method, params, name)


def normalization(method: Method) -> tuple[list[float], list[float]]:
    mean, std = (method.encoder.get_buffer(f"normalize.{k}").flatten().tolist() for k in ("mean", "std"))
    return mean, std


@pytest.mark.parametrize("name", METHODS)
def test_every_encoder_of_a_method_begins_as_the_file_says_and_nothing_else_does(name: str, tmp_path: Path) -> None:
    own = weights(PARAMS[name].encoder)
    torch.save({"weights": own, "spec": {}, "run_id": ""}, tmp_path / "checkpoint.pt")
    method, said = begin(name, starting_from(name, tmp_path / "checkpoint.pt"))
    fresh, nothing = begin(name, PARAMS[name])
    assert isinstance(method, nn.Module)
    assert isinstance(fresh, nn.Module)
    found = [m for m in method.modules() if isinstance(m, ResNet | ViT)]
    assert len(found) == (2 if name == "dino" else 1)
    for encoder in found:
        assert all(torch.equal(v, own[k]) for k, v in encoder.state_dict().items())
    encoders_of = re.compile(r"^((student|teacher)\.)?encoder\.")
    rest = {k: v for k, v in fresh.state_dict().items() if not encoders_of.match(k)}
    assert len(rest) > 2
    assert all(torch.equal(v, method.state_dict()[k]) for k, v in rest.items())
    count = len(own) - 2
    assert said == (
        f"{name}.encoder.init: {count} tensors from {tmp_path}/checkpoint.pt (ours); left aside: none; "
        "normalize: their own"
    )
    assert nothing is None


def test_dinos_teacher_begins_as_its_student(tmp_path: Path) -> None:
    torch.save(bare(PARAMS["dino"].encoder), tmp_path / "a.pth")
    method, _ = begin("dino", starting_from("dino", tmp_path / "a.pth"))
    assert isinstance(method, DINO)
    student, teacher = method.student.state_dict(), method.teacher.state_dict()
    assert all(torch.equal(student[k], teacher[k]) for k in student)
    assert not any(p.requires_grad for p in method.teacher.parameters())


def test_the_random_control_knows_nothing_of_it(tmp_path: Path) -> None:
    params = starting_from("simclr", tmp_path / "nowhere.pth")
    control = methods.build("simclr", params, 16, MEAN, STD, seed=0)
    fresh = methods.build("simclr", PARAMS["simclr"], 16, MEAN, STD, seed=0)
    own, expected = control.encoder.state_dict(), fresh.encoder.state_dict()
    assert all(torch.equal(own[k], expected[k]) for k in expected)


def test_the_sentence_names_what_was_left_aside_and_interpolated(tmp_path: Path) -> None:
    decoder = {"mask_token": torch.zeros(1), "decoder_pos_embed": torch.zeros(1)}
    torch.save({"model": bare(PARAMS["mae"].encoder, 56) | decoder}, tmp_path / "mae.pth")
    _, said = begin("mae", starting_from("mae", tmp_path / "mae.pth"))
    assert said == (
        f"mae.encoder.init: 54 tensors from {tmp_path}/mae.pth (MAE); left aside: mask_token, decoder_pos_embed; "
        "positions interpolated from 14 × 14 to 4 × 4; normalize: imagenet"
    )


@pytest.mark.parametrize(
    ("whose", "wanted", "expected"),
    [
        ("ours", "auto", OTHERS),
        ("ours", "dataset", (MEAN, STD)),
        ("ours", "imagenet", PUBLISHED["imagenet"]),
        ("public", "auto", PUBLISHED["imagenet"]),
        ("public", "dataset", (MEAN, STD)),
        ("public", "half", PUBLISHED["half"]),
        ("timm", "half", PUBLISHED["half"]),
        ("none", "auto", (MEAN, STD)),
        ("none", "dataset", (MEAN, STD)),
        ("none", "imagenet", PUBLISHED["imagenet"]),
    ],
)
def test_normalisation(whose: str, wanted: Normalization, expected: tuple[Any, Any], tmp_path: Path) -> None:
    of = PARAMS["mae"].encoder
    file = {"ours": weights(of), "timm": bare(of) | {"head.weight": torch.zeros(1)}}.get(whose, bare(of))
    torch.save(file, tmp_path / "a.pth")
    method, _ = begin("mae", starting_from("mae", None if whose == "none" else tmp_path / "a.pth", wanted))
    mean, std = normalization(method)
    assert mean == pytest.approx(expected[0])
    assert std == pytest.approx(expected[1])


def test_what_timms_file_does_not_say_is_asked_for(tmp_path: Path) -> None:
    torch.save(bare(PARAMS["mae"].encoder) | {"head.weight": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"^mae\.encoder\.init: a file of timm does not say how its images were "):
        begin("mae", starting_from("mae", tmp_path / "a.pth"))


def test_the_digest_is_of_the_files_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    saved.save(folder, {"image_size": 16}, weights(PARAMS["mae"].encoder))
    params, scratch = starting_from("mae", folder), starting_from("mae", None)
    digest = init_digest(params)
    assert digest == hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    assert init_digest(scratch) is None
    saved.save(folder, {"image_size": 16}, {k: v + 1 for k, v in weights(PARAMS["mae"].encoder).items()})
    assert init_digest(params) not in (digest, None)


def test_a_run_from_other_weights_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    c = config.load(ROOT / "params.yaml")
    setting = Setting(torch.float32, torch.contiguous_format, False)
    keys = {json.dumps(pretrain.identity("mae", c, 0, setting, "data", digest)) for digest in (None, "a", "b")}
    assert len(keys) == 3


@pytest.mark.parametrize(
    "init", ["", " ", "models:/a", "models:/a/latest", "models:/a@", "models:/a@b@c", "https://a/b"]
)
def test_an_address_that_is_none_is_refused_with_the_params(init: str, project: Project) -> None:
    params = project.root / "params.yaml"
    project.set({"mae.encoder.init": init})
    with pytest.raises(
        ConfigError, match=rf"mae\.encoder\.init is {init!r}; allowed: a file or a folder here, models:/"
    ):
        config.load(params)


@pytest.mark.parametrize(
    "init", ["weights/a.pth", "artifacts/mae/checkpoint.pt", "models:/a-b.c/3", "models:/a@champion"]
)
def test_files_and_addresses_are_taken(init: str, project: Project) -> None:
    project.set({"mae.encoder.init": init})
    assert config.load(project.root / "params.yaml").mae.encoder.init == init


def damaged(path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(9)}}, path)
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (None, "weights/a.pth is not here, or not readable; encoder.init takes a file of weights, "),
        (damaged, "mae.encoder.init: weights/a.pth is damaged, or no checkpoint"),
        (
            lambda path: torch.save({"model": bare(ViTParams("vit_nano", 4)) | {"extra": torch.zeros(1)}}, path),
            "mae.encoder.init: the weights do not fit: missing none; unknown extra",
        ),
        (
            lambda path: torch.save(bare(ViTParams("vit_nano", 8)), path),
            "mae.encoder.init: the weights do not fit: patch_embed.proj.weight is (64, 3, 8, 8), expected (64, 3, 4,",
        ),
    ],
)  # fmt: skip
def test_a_bad_file_ends_the_stage_with_one_sentence(project: Project, write: Any, said: str) -> None:
    project.set({"mae.encoder.init": "weights/a.pth"})
    (project.root / "weights").mkdir()
    if write:
        write(project.root / "weights" / "a.pth")
    done = project.run("-c", BARE, "mae")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"pretrain@mae: {said}")
    assert "Traceback" not in done.stderr
    assert not project.artifact("mae", "checkpoint.pt").exists()


def test_an_encoder_that_is_built_otherwise_is_named_as_such(project: Project) -> None:
    """Not by the sixty keys that its weights lack."""
    params = ViTParams("vit_nano", 8, pool="mean")
    saved.save(project.root / "other", {"encoder": asdict(params), "image_size": 16}, bare(params))
    project.set({"simclr.encoder.init": "other"})
    done = project.run("-c", BARE, "simclr")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "pretrain@simclr: simclr.encoder.init: other is {arch: vit_nano, patch_size: 8, "
    )
    assert "and simclr.encoder is {arch: resnet10, width: 8, stem: small/2, " in done.stderr.splitlines()[-1]


def trained(project: Project) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(project.artifact("mae", "checkpoint.pt"), weights_only=True)
    return checkpoint


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_pretraining_goes_on_from_a_checkpoint_of_ours(project: Project) -> None:
    project.set({"mae.epochs": 2})
    assert project.run("-c", BARE, "mae").returncode == 0
    first = trained(project)
    (project.root / "weights").mkdir()
    project.artifact("mae", "checkpoint.pt").rename(project.root / "weights" / "mae.pt")
    project.set(STILL | {"mae.encoder.init": "weights/mae.pt", "seed": 1})
    done = project.run("-c", BARE, "mae")
    assert done.returncode == 0, done.stderr
    assert (
        "mae.encoder.init: 54 tensors from weights/mae.pt (ours); left aside: none; normalize: their own" in done.stdout
    )
    second = trained(project)
    assert_equal(first["weights"], second["weights"])
    digest = hashlib.sha256((project.root / "weights" / "mae.pt").read_bytes()).hexdigest()
    assert second["spec"]["init_digest"] == digest
    assert first["spec"]["init_digest"] is None
    again = saved.restore(second["spec"], second["weights"])
    assert_equal(dict(again.state_dict()), second["weights"])


REGISTERED = """
from pipelines import init, mlflow_store, pretrain, register, stage, tracking
address = "models:/digits-encoder@champion"
try:
    init.download(address)
except stage.StageError as error:
    print(error)
client = mlflow_store.connect()
client.set_registered_model_alias("digits-encoder", "champion", "1")
pretrain.main("mae")
register.main("mae")
version = client.get_model_version("digits-encoder", "2")
for tags in (version.tags, client.get_run(version.run_id).data.tags):
    print(tags["init"], tags["init_digest"])
"""


def test_pretraining_goes_on_from_the_registry_and_says_so_there(project: Project) -> None:
    project.set({"mae.epochs": 2})
    assert project.run("-c", BARE, "mae").returncode == 0
    first = trained(project)
    project.artifact("mae", "metrics.json").write_text(json.dumps({"mae": {"linear_all": 50.0}}))
    project.artifact("mae", "finetune.json").write_text("{}")
    project.artifact("mae", "diagnosis.json").write_text(json.dumps({"name": "healthy", "because": "", "change": ""}))
    assert project.run("-m", "pipelines.register", "mae").returncode == 0
    project.set(STILL | {"mae.encoder.init": "models:/digits-encoder@champion", "seed": 1})
    done = project.run("-c", REGISTERED)
    assert done.returncode == 0, done.stderr
    missing, started, *_, version, run = done.stdout.splitlines()
    assert missing.startswith("models:/digits-encoder@champion cannot be read from MLflow's store (")
    assert started.startswith("mae.encoder.init: 54 tensors from models:/digits-encoder@champion (ours); ")
    second = trained(project)
    assert_equal(first["weights"], second["weights"])
    digest = second["spec"]["init_digest"]
    assert version == run == f"models:/digits-encoder@champion {digest}"
    assert re.fullmatch("[0-9a-f]{64}", digest)
