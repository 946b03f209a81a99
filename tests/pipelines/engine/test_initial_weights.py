"""A method that starts from weights: which of its parts get them, its normalisation, and what is said."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models import CheckpointError, saved, start
from models.encoders.normalize import PUBLISHED, Normalization
from models.encoders.resnet import ResNet
from models.encoders.vit import ViT
from models.method import Method, MethodParams
from models.methods.dino import DINO
from pipelines import pretrain
from pipelines.engine.initial_weights import apply, init_digest
from pipelines.machine.hardware import Setting
from pipelines.project import config
from tests.models.conftest import MEAN, STD
from tests.models.methods.test_methods import PARAMS
from tests.pipelines.engine.weights import OTHERS, bare, weights
from tests.pipelines.small_project import METHODS, ROOT


def starting_from(name: str, init: Path | str | None, normalize: Normalization = "auto") -> MethodParams:
    params = PARAMS[name]
    return replace(params, encoder=replace(params.encoder, init=init and str(init), normalize=normalize))  # type: ignore[arg-type]


def begin(name: str, params: MethodParams) -> tuple[Method, str | None]:
    method = start.method(name, params, 16, MEAN, STD, seed=0)
    return method, apply(method, params, name)


def normalization(method: Method) -> tuple[list[float], list[float]]:
    mean, std = (method.encoder.get_buffer(f"normalize.{k}").flatten().tolist() for k in ("mean", "std"))
    return mean, std


@pytest.mark.parametrize("name", METHODS)
def test_every_encoder_of_a_method_begins_as_the_file_says_and_nothing_else_does(name: str, tmp_path: Path) -> None:
    own = weights(PARAMS[name].encoder)
    torch.save({"weights": own, "spec": {}, "run_id": ""}, tmp_path / "checkpoint.pt")
    method, line = begin(name, starting_from(name, tmp_path / "checkpoint.pt"))
    fresh, nothing = begin(name, PARAMS[name])
    found = [m for m in method.modules() if isinstance(m, ResNet | ViT)]
    assert len(found) == (2 if name == "dino" else 1)
    for encoder in found:
        assert all(torch.equal(v, own[k]) for k, v in encoder.state_dict().items())
    encoders_of = re.compile(r"^((student|teacher)\.)?encoder\.")
    rest = {k: v for k, v in fresh.state_dict().items() if not encoders_of.match(k)}
    assert len(rest) > 2
    assert all(torch.equal(v, method.state_dict()[k]) for k, v in rest.items())
    count = len(own) - 2
    assert line == (
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


def test_the_random_baseline_knows_nothing_of_it(tmp_path: Path) -> None:
    params = starting_from("simclr", tmp_path / "nowhere.pth")
    baseline = start.method("simclr", params, 16, MEAN, STD, seed=0)
    fresh = start.method("simclr", PARAMS["simclr"], 16, MEAN, STD, seed=0)
    own, expected = baseline.encoder.state_dict(), fresh.encoder.state_dict()
    assert all(torch.equal(own[k], expected[k]) for k in expected)


def test_the_sentence_names_what_was_left_aside_and_interpolated(tmp_path: Path) -> None:
    decoder = {"mask_token": torch.zeros(1), "decoder_pos_embed": torch.zeros(1)}
    torch.save({"model": bare(PARAMS["mae"].encoder, 56) | decoder}, tmp_path / "mae.pth")
    _, line = begin("mae", starting_from("mae", tmp_path / "mae.pth"))
    assert line == (
        f"mae.encoder.init: 54 tensors from {tmp_path}/mae.pth (MAE; if they are the official weights, their "
        "licence is CC BY-NC 4.0, no commercial use); left aside: mask_token, decoder_pos_embed; "
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
    with pytest.raises(
        CheckpointError, match=r"^Parameter mae\.encoder\.init: A file of timm does not say how its images were "
    ):
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
