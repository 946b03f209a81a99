"""The memory of a training is known before it starts, and a sentence says what to change; torch.cuda is replaced."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from models import start
from models.method import MethodParams
from pipelines import pretrain
from pipelines.machine import footprint
from pipelines.machine.hardware import Setting
from pipelines.project import config
from pipelines.project.config import Config
from pipelines.project.stage import StageError
from tests.pipelines.small_project import ROOT

GPU, GIB = torch.device("cuda", 0), 2**30
BASE = config.load(ROOT / "recipes" / "imagenet-vit-base.yaml")
RESNET = config.load(ROOT / "recipes" / "imagenet-resnet50.yaml")


def of(name: str, params: MethodParams, images: int, bf16: bool = True) -> float:
    with torch.device("meta"):
        method = start.method(name, params, 224, (0.5,) * 3, (0.25,) * 3, 0)
    return (footprint.needed(method, params, 224, images, bf16) - footprint.SPARE[1]) / footprint.SPARE[0] / GIB


@pytest.mark.parametrize(
    ("name", "params", "images", "kept"),
    [
        ("simclr", BASE.method("simclr"), 512, 63),
        ("mae", BASE.method("mae"), 512, 23),
        ("simclr", RESNET.method("simclr"), 512, 42),
    ],
)
def test_it_is_what_the_backward_pass_keeps_and_the_weights(
    name: str, params: MethodParams, images: int, kept: float
) -> None:
    """kept: GiB of activations, counted in another way: by hooks on what autograd saves."""
    assert kept < of(name, params, images) < 1.1 * kept + 3


def test_recomputed_blocks_keep_a_fraction() -> None:
    assert (
        of("simclr", replace(BASE.method("simclr"), recompute=True), 512) < of("simclr", BASE.method("simclr"), 512) / 3
    )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda d: SimpleNamespace(total_memory=80 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: "H100")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)


@pytest.mark.usefixtures("gpu")
def test_what_no_gpu_holds_is_refused_with_the_keys_to_change() -> None:
    build = partial(start.method, "dino", BASE.method("dino"), 224, (0.5,) * 3, (0.25,) * 3, 0)
    footprint.check("dino", build, BASE.method("dino"), 224, BASE.pretrain, 8, GPU)
    with pytest.raises(StageError) as refused:
        footprint.check("dino", build, BASE.method("dino"), 224, BASE.pretrain, 1, GPU)
    sentence = str(refused.value)
    assert sentence.startswith("The training run of dino needs about 3")
    assert sentence.endswith(
        "GB of memory for 1024 images at once, and H100 has 80 GB. In params.yaml, raise pretrain.processes (now 1, "
        "one per GPU), raise dino.accumulate (now 1), set dino.recompute to true (for transformers), or lower "
        "dino.batch_size (now 1024)."
    )


def test_a_way_that_is_closed_is_not_named() -> None:
    assert "accumulate" not in footprint.remedy("simclr", BASE.method("simclr"), 1)
    assert "recompute" not in footprint.remedy("simclr", RESNET.method("simclr"), 1)
    assert "accumulate" not in footprint.remedy("dino", RESNET.method("dino"), 1)


@contextmanager
def little_room() -> Iterator[None]:
    """An address space that holds what is there now and 1 GiB more."""
    now, (soft, hard) = int(Path("/proc/self/statm").read_text().split()[0]), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now * resource.getpagesize() + GIB, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_out_of_memory_is_a_sentence() -> None:
    sentence = (
        "The training run of mae ran out of memory with 512 images at once. In params.yaml, raise pretrain.processes "
        "(now 8, one per GPU), raise mae.accumulate (now 1), set mae.recompute to true (for transformers), or lower "
        "mae.batch_size (now 4096)."
    )
    with pytest.raises(StageError) as of_a_gpu, footprint.explained("mae", BASE.method("mae"), 8):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 79.10 GiB")
    with little_room(), pytest.raises(StageError) as of_a_cpu, footprint.explained("mae", BASE.method("mae"), 8):
        torch.ones(2 * GIB)
    assert str(of_a_gpu.value) == str(of_a_cpu.value) == sentence
    with pytest.raises(RuntimeError, match="another"), footprint.explained("mae", BASE.method("mae"), 8):
        raise RuntimeError("another")


def test_shards_of_the_weights_need_less() -> None:
    def of_shards(n: int) -> float:
        with torch.device("meta"):
            method = start.method("mae", BASE.method("mae"), 224, (0.5,) * 3, (0.25,) * 3, 0)
        return footprint.needed(method, BASE.method("mae"), 224, 8, True, n)

    with torch.device("meta"):
        method = start.method("mae", BASE.method("mae"), 224, (0.5,) * 3, (0.25,) * 3, 0)
    weights = sum(p.numel() * p.element_size() for p in method.parameters() if p.requires_grad)
    # Weights, gradients, two moments of AdamW and a buffer of the gradients' sum: of each seven eighths less.
    assert of_shards(1) - of_shards(8) == pytest.approx(footprint.SPARE[0] * 5 * weights * 7 / 8, rel=1e-3)


def test_what_is_computed_twice_to_save_memory_goes_on_from_the_same_checkpoint() -> None:
    def of_run(c: Config) -> dict[str, Any]:
        return pretrain.identity("mae", c, 0, Setting(torch.float32, torch.contiguous_format, False), "data", None)

    assert of_run(BASE.having("mae", replace(BASE.method("mae"), recompute=True))) == of_run(BASE)
    assert of_run(BASE.having("mae", replace(BASE.method("mae"), epochs=7))) != of_run(BASE)
