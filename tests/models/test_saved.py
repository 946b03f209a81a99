"""The folder that the registry keeps: exact, plain, and honest when it does not fit."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models import CheckpointError
from models.encoders.resnet import ResNetParams
from models.encoders.vit import ViTParams
from models.encoders.weights import Spec
from models.saved import _load_pyfunc, load, save
from tests.models.conftest import RESNET, VIT, noise_images, small

ENCODERS = pytest.mark.parametrize("params", [RESNET, VIT], ids=["resnet", "vit"])


def spec_of(params: ResNetParams | ViTParams) -> Spec:
    return {"encoder": asdict(params), "image_size": 16, "dataset": "größe"}


@ENCODERS
def test_round_trip_is_bit_equal(params: ResNetParams | ViTParams, tmp_path: Path) -> None:
    encoder = small(params)
    encoder(noise_images(4, 16))  # gives batch norm statistics of its own
    save(tmp_path / "new" / "folder", spec_of(params), encoder.state_dict())
    spec, again = load(tmp_path / "new" / "folder")
    assert spec == spec_of(params)
    assert not again.training
    own, restored = encoder.state_dict(), again.state_dict()
    assert list(own) == list(restored)
    assert all(torch.equal(own[k], restored[k]) and own[k].dtype == restored[k].dtype for k in own)


def test_the_folder_is_two_plain_files(tmp_path: Path) -> None:
    encoder = small(VIT)
    save(tmp_path, spec_of(VIT), encoder.state_dict())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder.json", "weights.safetensors"]
    assert json.loads((tmp_path / "encoder.json").read_text())["encoder"]["patch_size"] == 4
    data = (tmp_path / "weights.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    assert {k: tuple(v["shape"]) for k, v in header.items()} == {
        k: tuple(v.shape) for k, v in encoder.state_dict().items()
    }
    assert len(data) == 8 + length + sum(v.numel() * v.element_size() for v in encoder.state_dict().values())


@ENCODERS
def test_the_registry_predicts_what_the_encoder_says(params: ResNetParams | ViTParams, tmp_path: Path) -> None:
    encoder, images = small(params).eval(), noise_images(3, 16)
    save(tmp_path, spec_of(params), encoder.state_dict())
    embeddings = _load_pyfunc(str(tmp_path)).predict(images.numpy())
    assert torch.equal(torch.from_numpy(embeddings), encoder(images))


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    save(tmp_path, spec_of(VIT), small(VIT).state_dict())
    save_file(small(VIT, 32).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"pos_embed is \(1, 65, 64\) instead of \(1, 17, 64\)"):
        load(tmp_path)
