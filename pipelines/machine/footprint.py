"""The memory of a training step, counted before anything is trained: on tensors that have sizes and no numbers.

Counted as it is not compiled; what is compiled needs less.
"""

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from models.baselines.fixmatch import FixMatchParams
from models.baselines.pseudolabel import PseudoLabelParams
from models.encoders.vit import recompute
from models.method import Method, MethodParams
from models.methods import BaselineParams
from pipelines.machine import hardware
from pipelines.project.config import PretrainParams
from pipelines.project.stage import StageError
from pipelines.project.supervision import batch_of
from serving.host.command import SAYS_MEMORY

GB = 1e9
MOMENTS = {"adamw": 2, "sgd": 1, "lars": 1}  # values that an optimiser keeps of each parameter
SURE = 1.2  # so much more than there is does not fit, however wrong the estimate is
SPARE = 1.05, 1.5 * GB  # times and plus: what the allocator cannot use, CUDA's own memory, workspaces


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages that were made while it is on and are alive: now, and at the most."""

    def __init__(self, before: list[Tensor]):
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.known = WeakIdKeyDictionary({x.untyped_storage(): None for x in before})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.count, out)
        return out

    def count(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        if storage not in self.known:
            self.known[storage] = None
            self.now += (size := storage.nbytes())
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.free, size)

    def free(self, size: int) -> None:
        self.now -= size


def needed(
    method: Method, params: MethodParams | BaselineParams, size: int, n: int, bf16: bool, shards: int = 1
) -> float:
    """Bytes that training takes at the most while it has n images of this size, px, at once.

    method: of the meta device; it cannot be used afterwards. shards: processes that share the weights (FSDP2).
    """
    if params.recompute:
        recompute(method)
    images = torch.empty(n, 3, size, size, dtype=torch.uint8, device="meta")
    draws = [d.to("meta") for d in method.draw(n, size, size, torch.Generator())]
    shapes = [(view.shape, view.dtype) for view in method.views(images, draws)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        method.to_empty(device="cpu").train()
        views = [torch.empty(shape, dtype=dtype) for shape, dtype in shapes]
        given = [*method.parameters(), *method.buffers(), *views]
        with Live(given) as live:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = method.loss(views, 0.5)
            loss.backward()  # type: ignore[no-untyped-call]
    kept = MOMENTS[params.optim.name] + 1  # and what the ranks send each other
    trained = sum(p.numel() * p.element_size() for p in method.parameters() if p.requires_grad)
    counted = live.most + kept * trained + sum(x.numel() * x.element_size() for x in (*given, images))
    counted -= (kept + 2) * trained * (1 - 1 / shards)  # of weights and gradients, too, each process has its part
    return float(SPARE[0] * counted + SPARE[1])


def at_once(params: MethodParams | BaselineParams, processes: int) -> int:
    """Images that a process has in one part of a step."""
    return sum(batch_of(params)) // (processes * params.accumulate)


def installed() -> int:
    """Bytes of memory that this machine has, GPUs apart."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check(
    name: str,
    build: Callable[[], Method],
    params: MethodParams | BaselineParams,
    size: int,
    how: PretrainParams,
    processes: int,
    device: torch.device,
) -> None:
    """Raises StageError where a training run cannot fit its GPU; says so where it is uncertain.

    name: of its section in params.yaml.
    """
    if device.type != "cuda":
        return
    with torch.device("meta"):
        method = build()
    bf16 = hardware.precision(how.precision, device, method.encoder, size) == torch.bfloat16
    images, has = at_once(params, processes), torch.cuda.get_device_properties(device).total_memory
    sharded = how.sharded and isinstance(params, MethodParams)
    need = needed(method, params, size, images, bf16, processes if sharded else 1)
    sentence = (
        f"The training run of {name} needs about {need / GB:,.0f} GB of memory for {images} images at once, and "
        f"{torch.cuda.get_device_name(device)} has {has / GB:,.0f} GB. {remedy(name, params, processes, sharded)}"
    )
    if need > SURE * has:
        raise StageError(sentence)
    if need > has:
        print(f"It may run out of memory. {sentence}", flush=True)


def remedy(name: str, params: MethodParams | BaselineParams, processes: int, sharded: bool = True) -> str:
    """The keys that make a step smaller, as a sentence."""
    ways = [f"raise pretrain.processes (now {processes}, one per GPU)"]
    blocks = not isinstance(params, MethodParams) or params.encoder.BLOCKS
    whole = isinstance(params, PseudoLabelParams | FixMatchParams)
    if params.divisible if isinstance(params, MethodParams) else not whole:
        ways.append(f"raise {name}.accumulate (now {params.accumulate})")
    if blocks and not params.recompute:
        ways.append(f"set {name}.recompute to true (for transformers)")
    if isinstance(params, MethodParams) and processes > 1 and not sharded:
        ways.append("set pretrain.sharded to true")
    return f"In params.yaml, {', '.join(ways)}, or lower {name}.batch_size (now {params.batch_size})."


@contextmanager
def explained(name: str, params: MethodParams | BaselineParams, processes: int = 1) -> Iterator[None]:
    """Raises StageError, with the keys to change, where what is inside runs out of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError, as is a CPU's
        if not isinstance(error, MemoryError) and not SAYS_MEMORY.search(str(error)):
            raise
        images, sentence = at_once(params, processes), remedy(name, params, processes)
        raise StageError(
            f"The training run of {name} ran out of memory with {images} images at once. {sentence}"
        ) from None
