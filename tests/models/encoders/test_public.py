"""Weights of others: their published names and shapes, what is left aside, and their features."""

import argparse
import pathlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models import CheckpointError
from models.encoders import public
from models.encoders.encoder import Encoder, EncoderParams
from models.encoders.resnet import ResNetParams
from models.encoders.vit import ViTParams
from models.encoders.weights import check, load
from tests.models.conftest import MEAN, RESNET, STD, VIT, noise_images, small
from tests.models.peers import peer

LISTS = Path(__file__).parent / "public"
DECODER = [
    "decoder_embed", "decoder_norm", "decoder_pred",
    *(f"decoder_blocks.{i}.{part}" for i in range(8)
      for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")),
]  # fmt: skip
HEAD = ["head.mlp.0", "head.mlp.2", "head.mlp.4"]


def both(modules: list[str]) -> set[str]:
    return {f"{module}.{part}" for module in modules for part in ("weight", "bias")}


def listed(name: str) -> dict[str, Tensor]:
    """The tensors of a public checkpoint, by the list in public/: zeros that share one number of memory."""
    tensors = {}
    for line in (LISTS / f"{name}.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        key, sizes = line.split()
        shape = [] if sizes == "scalar" else [int(size) for size in sizes.split("x")]
        blocks = re.search(r"\.0-(\d+)\.", key)  # blocks.0-11.norm1.weight stands for twelve
        for i in range(int(blocks[1]) + 1) if blocks else [0]:
            tensors[key.replace(blocks[0], f".{i}.") if blocks else key] = torch.zeros(()).expand(shape)
    return tensors


def on_meta(params: EncoderParams, size: int = 224) -> Encoder:
    with torch.device("meta"):
        return params.build(size, MEAN, STD)


def vit(size: str, patch: int) -> ViTParams:
    return ViTParams(f"vit_{size}", patch, "learned")  # type: ignore[arg-type]


def plain(tensors: dict[str, Tensor]) -> Any:
    return tensors


def in_model(tensors: dict[str, Tensor]) -> Any:
    return {"model": tensors}


def dino_full(tensors: dict[str, Tensor]) -> Any:
    """All that main_dino.py saves under submitit: its learning rate is of a numpy schedule, its folder a path."""
    student, teacher = (
        {k.removeprefix(who): v for k, v in tensors.items() if k.startswith(who)} for who in ("student/", "teacher/")
    )
    lr = np.linspace(0.0, 1.0, 5)[3]
    return {
        "student": student,
        "teacher": teacher,
        "optimizer": {"state": {}, "param_groups": [{"lr": lr, "weight_decay": lr, "params": [0, 1]}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", output_dir=pathlib.PosixPath("/checkpoint/dino")),
        "dino_loss": {"center": torch.zeros(1).expand(1, 65536)},
        "fp16_scaler": {"scale": 65536.0, "_growth_tracker": 0},
    }


@pytest.mark.parametrize(
    ("name", "wrap", "arch", "source", "count", "aside"),
    [
        ("mae_vit_base_16", in_model, ("base", 16), public.MAE, 150, set()),
        ("mae_vit_large_16", in_model, ("large", 16), public.MAE, 294, set()),
        ("mae_vit_huge_14", in_model, ("huge", 14), public.MAE, 390, set()),
        *(
            (f"mae_vit_{a}_full", in_model, (a.split("_")[0], int(a.split("_")[1])), public.MAE, count,
             both(DECODER) | {"mask_token", "decoder_pos_embed"})
            for a, count in (("base_16", 150), ("large_16", 294), ("huge_14", 390))
        ),
        ("dino_vit_small_16", plain, ("small", 16), public.BARE, 150, set()),
        ("dino_vit_small_8", plain, ("small", 8), public.BARE, 150, set()),
        ("dino_vit_base_16", plain, ("base", 16), public.BARE, 150, set()),
        ("dino_vit_base_8", plain, ("base", 8), public.BARE, 150, set()),
        ("dino_vit_small_16_full", dino_full, ("small", 16), public.DINO, 150,
         both(HEAD) | {"head.last_layer.weight_g", "head.last_layer.weight_v"}),
        ("dino_resnet50", plain, ResNetParams("resnet50"), public.BARE, 318, set()),
        ("torchvision_resnet18", plain, ResNetParams("resnet18"), public.TORCHVISION, 120, both(["fc"])),
        ("torchvision_resnet50", plain, ResNetParams("resnet50"), public.TORCHVISION, 318, both(["fc"])),
        ("timm_vit_small_patch16_224", plain, ("small", 16), public.TIMM, 150, both(["head"])),
        ("timm_vit_base_patch16_224", plain, ("base", 16), public.TIMM, 150, both(["head"])),
        ("timm_vit_large_patch16_224", plain, ("large", 16), public.TIMM, 294, both(["head"])),
    ],
)  # fmt: skip
def test_a_public_checkpoint_is_recognised_and_fits(
    name: str, wrap: Callable[[dict[str, Tensor]], Any], arch: Any, source: public.Source, count: int,
    aside: set[str], tmp_path: Path,
) -> None:  # fmt: skip
    path = tmp_path / "weights.pth"
    torch.save(wrap(listed(name)), path)
    found = public.read(path)
    assert found.source is source
    assert (len(found.tensors), set(found.aside)) == (count, aside)
    encoder = on_meta(vit(*arch) if isinstance(arch, tuple) else arch)
    assert encoder.regrid(found.tensors) == []
    check(encoder, found.tensors)
    assert set(encoder.state_dict()) - set(found.tensors) == {"normalize.mean", "normalize.std"}


def test_of_a_full_dino_checkpoint_the_teacher_is_taken(tmp_path: Path) -> None:
    own = {k: v for k, v in small(RESNET).state_dict().items() if not k.startswith("normalize.")}
    student = {f"module.backbone.{k}": torch.zeros_like(v) for k, v in own.items()}
    head = {"head.last_layer.weight": torch.zeros(2, 2)}
    for wrapper in ("", "module."):  # DDP stays around a teacher with batch norm
        teacher = {f"{wrapper}{k}": v for k, v in ({f"backbone.{k}": v for k, v in own.items()} | head).items()}
        torch.save({"student": student, "teacher": teacher}, tmp_path / "full.pth")
        found = public.read(tmp_path / "full.pth")
        assert found.tensors.keys() == own.keys()
        assert all(torch.equal(found.tensors[k], own[k]) for k in own)
        assert found.aside == ["head.last_layer.weight"]


def test_safetensors_and_torch_are_the_same_weights(tmp_path: Path) -> None:
    own = small(VIT).state_dict()
    save_file(own, tmp_path / "a.safetensors")
    torch.save({"weights": own, "spec": {}, "run_id": ""}, tmp_path / "b.pt")
    for name in ("a.safetensors", "b.pt"):
        found = public.read(tmp_path / name)
        assert found.source is public.OURS
        assert all(torch.equal(found.tensors[k], own[k]) for k in own)
        assert not found.aside


def test_old_files_count_no_batches() -> None:
    weights = {k: v for k, v in listed("torchvision_resnet18").items() if not k.startswith("fc.")}
    older = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    assert len(older) == 100
    check(on_meta(ResNetParams("resnet18")), older)


def test_another_stem_is_named_by_its_convolution() -> None:
    weights = {k: v for k, v in listed("torchvision_resnet18").items() if not k.startswith("fc.")}
    with pytest.raises(CheckpointError, match=r"conv1\.weight is \(64, 3, 7, 7\) instead of \(64, 3, 3, 3\)\. "):
        check(on_meta(ResNetParams("resnet18", stem="small")), weights)


def test_another_size_is_named_briefly() -> None:
    weights = listed("mae_vit_large_16")
    with pytest.raises(CheckpointError, match=r"missing none; unknown (blocks\.\S+, ){2}blocks\.\S+ and 141 more\. "):
        check(on_meta(ViTParams("vit_base", 16)), weights)


@pytest.mark.parametrize(("size", "new"), [(96, 6), (320, 20)])
def test_positions_of_another_grid_are_interpolated_as_mae_does(size: int, new: int) -> None:
    table = torch.randn(1, 197, 64, generator=torch.Generator().manual_seed(0))
    tensors = {"pos_embed": table.clone()}
    clauses = small(ViTParams("vit_nano", 16), size).regrid(tensors)
    assert clauses == [f"positions interpolated from 14 × 14 to {new} × {new}"]
    square = table[:, 1:].reshape(-1, 14, 14, 64).permute(0, 3, 1, 2)
    square = torch.nn.functional.interpolate(square, size=(new, new), mode="bicubic", align_corners=False)
    expected = torch.cat((table[:, :1], square.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)
    torch.testing.assert_close(tensors["pos_embed"], expected)


def scrambled(model: Any) -> Any:
    """A peer's model in eval mode, whose norms and biases do something."""
    generator = torch.Generator().manual_seed(0)
    for key, value in model.state_dict().items():
        if value.ndim == 1:
            value.copy_(
                torch.rand(value.shape, generator=generator) / 2 + ("running_var" in key or "weight" in key) / 2
            )
    return model.eval()


@torch.inference_mode()
def difference(ours: Encoder, theirs: Callable[[Tensor], Tensor]) -> float:
    """The largest, relative to the largest entry, on the same images; the peer's are normalised outside."""
    images = noise_images(2, 224)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    expected = theirs((images / 255 - mean) / std)
    return float((ours.eval()(images) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_features_are_torchvisions(arch: str, tmp_path: Path) -> None:
    model = scrambled(peer("torchvision").models.get_model(arch))
    torch.save(model.state_dict(), tmp_path / "a.pth")
    model.fc = torch.nn.Identity()
    ours = ResNetParams(arch).build(224, MEAN, STD)  # type: ignore[arg-type]
    load(ours, public.read(tmp_path / "a.pth").tensors)
    assert difference(ours, model) < 1e-5


@pytest.mark.parametrize("arch", ["vit_small", "vit_base"])
def test_features_are_timms(arch: str, tmp_path: Path) -> None:
    model = scrambled(peer("timm").create_model(f"{arch}_patch16_224"))
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    ours = ViTParams(arch, 16, "learned").build(224, MEAN, STD)  # type: ignore[arg-type]
    load(ours, public.read(tmp_path / "a.safetensors").tensors)
    assert difference(ours, lambda x: model.forward_features(x)[:, 0]) < 1e-5
