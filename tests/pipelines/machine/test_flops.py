"""An encoder that no ONNX file holds is refused before it is trained."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from models import methods, start
from models.encoders.vit import ViTParams
from pipelines import plan, pretrain
from pipelines.machine.flops import check_file, check_size
from pipelines.project import config
from pipelines.project.stage import StageError
from tests.pipelines.small_project import ROOT, Project

GPU = torch.device("cuda")  # there this machine's memory need not hold a training's moments


@pytest.mark.parametrize("name", methods.METHODS)
def test_vit_huge_is_refused_and_vit_large_is_not(name: str) -> None:
    """Dosovitskiy et al., 2020, table 1: 307 M parameters with their classifier, 1.1 GiB; 632 M, 2.4 GiB."""
    params = config.load(ROOT / "recipes/imagenet-vit-large.yaml").method(name)

    def check(arch: str, patch_size: int) -> None:
        given = replace(params, encoder=ViTParams(arch, patch_size))  # type: ignore[arg-type]
        check_size(name, partial(start.method, name, given, 224, (0.5,) * 3, (0.25,) * 3, 0), GPU)

    check("vit_large", 16)
    with pytest.raises(StageError) as refused:
        check("vit_huge", 14)
    assert str(refused.value) == (
        f"The encoder of {name} has 2.35 GiB of weights in fp32. Allowed: less than 2 GiB, the most that an ONNX file "
        f"holds. Choose a smaller encoder in the section {name} of params.yaml."
    )


def test_protobuf_ends_at_two_gibibytes() -> None:
    check_file("mae", nn.Linear(2**29 - 1, 1, bias=False, device="meta"))
    with pytest.raises(StageError, match=r"^The encoder of mae has 2\.00 GiB of weights in fp32\."):
        check_file("mae", nn.Linear(2**29, 1, bias=False, device="meta"))


@pytest.mark.parametrize("begin", [lambda: plan.main([]), lambda: pretrain.main("mae")], ids=["plan", "pretrain"])
def test_it_is_refused_before_anything_is_trained(begin: Callable[[], None], project: Project) -> None:
    project.set({"mae.encoder.arch": "vit_huge"})
    with (
        contextlib.chdir(project.root),
        pytest.raises(StageError, match=r"^The encoder of mae has 2\.35 GiB of weights"),
    ):
        begin()
