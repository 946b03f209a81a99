"""What two ranks hold and send: states without copies of the whole, shards gathered in bf16. Two processes on a CPU."""

import pickle
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from models import optim, start
from models.encoders.vit import Attention, Block, ViTParams
from models.methods.dino import DINOParams
from models.optim import OptimParams
from pipelines.machine import distributed

VIT = ViTParams("vit_nano", 8)
PARAMS = DINOParams(VIT, 1, 4, OptimParams("adamw", 0.001, 0.01), local_crops=0, head_hidden=16, head_dim=32)
CPU = torch.device("cpu")
Found = dict[str, Any]


class Trained:
    """A small DINO of this rank, whose last layer has not learned yet."""

    def __init__(self, seed: int, sharded: bool, bf16: bool = False):
        self.method = start.method("dino", PARAMS, 16, (0.5,) * 3, (0.25,) * 3, seed)
        self.module = cast(nn.Module, self.method)
        self.bf16 = bf16
        self.loss_of = distributed.spread(self.method, sharded, bf16)
        self.optimizer = optim.build(PARAMS.optim, self.module)

    def step(self) -> None:
        images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(dist.get_rank()))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.loss_of([images, images.flip(3)], 0.0, True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.method.before_step(0.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> distributed.State:
        return distributed.state(self.module, self.optimizer)


def in_two(rank: int, meeting: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    found: Found = {"sent": [0]}
    send = dist.broadcast_object_list

    def measured(objects: list[Any], *arguments: Any, **more: Any) -> None:
        found["sent"].append(len(pickle.dumps(objects)))
        send(objects, *arguments, **more)

    dist.broadcast_object_list = measured  # type: ignore[assignment]
    for kind in ("replicas", "shards"):
        first, second = Trained(0, kind == "shards"), Trained(1, kind == "shards")
        first.step()
        saved = first.state()
        distributed.restore(second.module, second.optimizer, saved if rank == 0 else None)
        found[kind] = [first.state(), second.state()]
        second.step()
        first.step()
        found[f"{kind}, a step later"] = [first.state(), second.state()]
    found["dtypes"] = gathered()
    if rank == 0:
        torch.save(found, out)
    dist.barrier()
    dist.destroy_process_group()


def gathered() -> list[str]:
    """The dtypes of a block's weight while it computes, of what it hands on, of the weight; whether a look works."""
    seen: list[str] = []
    trained = Trained(0, sharded=True, bf16=True)
    block = next(m for m in trained.module.modules() if isinstance(m, Block))

    def weight(module: Attention, inputs: tuple[Tensor], output: Tensor) -> None:
        seen[:] = [str(module.qkv.weight.dtype)]

    def between(module: Block, inputs: tuple[Tensor], output: Tensor) -> None:
        seen[1:] = [str(output.dtype)]

    block.attn.register_forward_hook(weight)
    block.register_forward_hook(between)
    trained.step()
    images = torch.rand(2, 3, 16, 16)
    features = distributed.within(trained.method, lambda: trained.method.encoder(images), CPU, bf16=True)
    return [*seen, str(block.attn.qkv.weight.dtype), str(features.isfinite().all().item())]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder: Path = tmp_path_factory.mktemp("ranks")
    spawn(in_two, (str(folder / "meeting"), str(folder / "found.pt")), nprocs=2)  # type: ignore[no-untyped-call]
    seen: Found = torch.load(folder / "found.pt", weights_only=True)
    return seen


@pytest.mark.parametrize("kind", ["replicas", "shards"])
def test_a_state_that_only_the_first_rank_has_is_restored_on_both(kind: str, found: Found) -> None:
    for then, now in (found[kind], found[f"{kind}, a step later"]):
        assert now["optimizer"]["state"].keys() == then["optimizer"]["state"].keys()
        assert "student.head.direction" not in now["optimizer"]["state"]
        torch.testing.assert_close(now["optimizer"]["state"], then["optimizer"]["state"], rtol=0, atol=0)
        torch.testing.assert_close(now["method"], then["method"], rtol=0, atol=0)


def test_no_rank_pickles_a_state(found: Found) -> None:
    weights = sum(x.numel() * x.element_size() for x in found["replicas"][0]["method"].values())
    assert max(found["sent"]) < weights / 20


def test_shards_are_gathered_in_bf16_and_added_up_in_fp32(found: Found) -> None:
    assert found["dtypes"] == ["torch.bfloat16", "torch.float32", "torch.float32", "True"]
