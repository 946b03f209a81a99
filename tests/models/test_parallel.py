"""Two ranks are one batch: what torch's own parts for GPUs would break, run by two processes on a CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from models import parallel
from models.encoders.resnet import ResNet, ResNetParams

ARCHS = ("resnet18", "resnet50")
Found = dict[str, dict[str, Any]]


def build(arch: str) -> ResNet:
    torch.manual_seed(0)
    params = ResNetParams(arch, width=4)  # type: ignore[arg-type]
    return ResNet(params, (0.5,) * 3, (0.25,) * 3).double().train()


def images() -> Tensor:
    return torch.rand(4, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def gradients(network: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """A loss of this part of the batch, and the gradient of its mean over the ranks."""
    loss = (network(x) - 1).square().mean()
    loss.backward()
    found = {name: parallel.mean(p.grad) for name, p in network.named_parameters() if p.grad is not None}
    return parallel.mean(loss.detach()), found


def in_two(rank: int, meeting: str, out: str) -> None:
    """What rank 0 of two sees: the graphs that dynamo makes, the loss, the gradients, the running statistics.

    The other rank compiles nothing, since tracing takes seconds: what is sent is the same.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    found: Found = {}
    for arch in ARCHS:
        graphs: list[torch.fx.GraphModule] = []

        def counted(graph: torch.fx.GraphModule, _: Any, graphs: list[Any] = graphs) -> Any:
            graphs.append(graph)
            return graph.forward

        network = build(arch)
        parallel.synchronise(network)
        if rank == 0:
            network.compile(backend=counted, dynamic=False)
        loss, grads = gradients(network, images().chunk(2)[rank])
        buffers = dict(network.named_buffers())
        found[arch] = {"graphs": len(graphs), "loss": loss, "gradients": grads, "buffers": buffers}
        torch._dynamo.reset()
    if rank == 0:
        torch.save(found, out)
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder: Path = tmp_path_factory.mktemp("ranks")
    spawn(in_two, (str(folder / "meeting"), str(folder / "found.pt")), nprocs=2)  # type: ignore[no-untyped-call]
    found: Found = torch.load(folder / "found.pt", weights_only=True)
    return found


@pytest.mark.parametrize("arch", ARCHS)
def test_a_compiled_residual_network_of_two_ranks_is_one_graph(arch: str, together: Found) -> None:
    assert together[arch]["graphs"] == 1


@pytest.mark.parametrize("arch", ARCHS)
def test_two_ranks_give_the_loss_and_the_gradients_of_one_process(arch: str, together: Found) -> None:
    network = build(arch)
    loss, grads = gradients(network, images())
    torch.testing.assert_close(together[arch]["loss"], loss, rtol=1e-9, atol=0)
    torch.testing.assert_close(together[arch]["gradients"], grads, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(together[arch]["buffers"], dict(network.named_buffers()), rtol=1e-9, atol=1e-12)


def test_a_batch_norm_on_a_gpu_is_the_same_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it lies decides nothing: the meta device stands for a GPU."""
    monkeypatch.setattr(parallel, "world", lambda: 2)
    with torch.device("meta"):
        network = build("resnet18")
    names = list(network.state_dict())
    parallel.synchronise(network)
    kinds = {type(m) for m in network.modules() if "BatchNorm" in type(m).__name__}
    assert kinds == {parallel.GlobalBatchNorm}
    assert list(network.state_dict()) == names
