"""`python -m benchmarks.speed.masking`: what MAE saves by encoding the visible patches only (section 3 of the paper).

It is compared with a variant that exists here only: the encoder sees every patch, with mask tokens in place of the
masked ones, and the same decoder follows. The two take turns in one process.
"""

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import timing
from models import start
from models.method import Method
from models.methods.mae import MAE, MAEParams, patchify, reconstruction
from pipelines.engine.loop import Training
from pipelines.engine.prefetch import Inputs, generator
from pipelines.machine import gpus, hardware
from pipelines.machine.flops import flops
from pipelines.project import config
from pipelines.project.config import PretrainParams
from serving.host.command import Parser


class MaskTokensInEncoder(MAE):
    """A variant of MAE whose encoder processes the mask tokens too."""

    encoder_mask_token: nn.Parameter

    @classmethod
    def of(cls, mae: MAE) -> "MaskTokensInEncoder":
        """With the same parameters, and a mask token of the encoder's width."""
        dense = cls.__new__(cls)
        dense.__dict__ = mae.__dict__ | {"_parameters": dict(mae._parameters)}
        dense.encoder_mask_token = nn.Parameter(torch.zeros(1, 1, mae.encoder.dim))
        return dense

    def loss(self, views: list[Tensor], progress: float) -> Tensor:
        x, noise = views
        visible, _ = self.split(noise)
        masked = torch.ones_like(noise).scatter_(1, visible, 0.0)  # (B, N), 1 = masked
        patches = self.encoder.patch_embed(self.encoder.normalize(x))
        patches = torch.where(masked[:, :, None] > 0, self.encoder_mask_token, patches)
        grid = self.encoder.grid
        latent = self.encoder.encode(patches + self.encoder.positions(grid, grid))  # (B, 1 + N, D)
        y = self.decoder_embed(latent) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            y = block(y)
        prediction = self.decoder_pred(self.decoder_norm(y))[:, 1:]
        target = patchify(self.encoder.normalize(x), self.encoder.patch_size)
        return reconstruction(prediction, target, masked, self.params.norm_pix)


def encoder_flops(mae: MAE, visible: int) -> int:
    """Of the blocks, forward, on one image's class token and `visible` patches: counted on the meta device."""
    encoder = copy.deepcopy(mae.encoder).to("meta")
    with FlopCounterMode(display=False) as counter:
        encoder.encode(torch.empty(1, visible, encoder.dim, device="meta"))
    return int(counter.get_total_flops())


def measure(params: MAEParams, size: int, device: torch.device, rounds: int, compiled: bool) -> dict[str, Any]:
    """FLOPs and seconds of a step, of MAE and of the variant, and their ratios."""
    torch._dynamo.reset()  # sizes before this one count towards a limit
    sparse = start.method("mae", params, size, (0.5,) * 3, (0.25,) * 3, 0)
    assert isinstance(sparse, MAE)
    dense: Method = MaskTokensInEncoder.of(sparse)
    patches = sparse.encoder.grid**2
    visible = max(1, int(patches * (1 - params.mask_ratio)))
    draws = [d.to(device) for d in sparse.draw(params.batch_size, size, size, generator(0, 0))]
    inputs = Inputs(torch.randint(0, 256, (params.batch_size, 3, size, size), dtype=torch.uint8).to(device), draws)
    counted = {"visible": flops(sparse, size), "all": flops(dense, size)}
    how = PretrainParams(compile=compiled)
    work: dict[str, Callable[[], object]] = {}
    for name, method in (("visible", sparse), ("all", dense)):
        setting = hardware.choose(how, method, params, size, 1000, device)
        training = Training(method, params, how, setting, device)
        work[name] = lambda training=training: training.step(inputs, 0.5)  # type: ignore[misc]
    spent = timing.in_turn(work, device, rounds)
    return {
        "encoder": f"{params.encoder.arch}/{params.encoder.patch_size}, {size} px",
        "decoder": f"{params.decoder_dim} × {params.decoder_depth}",
        "batch": params.batch_size,
        "encoder FLOPs": encoder_flops(sparse, visible) / encoder_flops(sparse, patches),
        "step FLOPs": counted["visible"] / counted["all"],
        "images/s": params.batch_size / spent["visible"],
        "images/s with mask tokens": params.batch_size / spent["all"],
        "faster": spent["all"] / spent["visible"],
    }


def mae(recipe: str) -> MAEParams:
    """MAE's section of a recipe."""
    params = config.load(Path("recipes", f"{recipe}.yaml")).method("mae")
    assert isinstance(params, MAEParams)
    return params


def run(device: torch.device, rounds: int, large: bool = True, compiled: bool = False) -> list[dict[str, Any]]:
    """Small size, and ViT-B/16 and ViT-L/16 at 224 px with the paper's decoder, few images per step on a CPU."""
    found = [measure(mae("cifar10-small"), 32, device, rounds, compiled)]
    for word, images in (("base", 8), ("large", 4)):
        if large:
            batch = images if device.type == "cpu" else 16 * images
            paper = replace(mae(f"imagenet-vit-{word}"), batch_size=batch)
            print(f"{paper.encoder.arch}, {batch} images per step", file=sys.stderr, flush=True)
            found.append(measure(paper, 224, device, rounds, compiled))
    return found


def main() -> None:
    parser = Parser(prog="python -m benchmarks.speed.masking", description=__doc__)
    parser.add_argument("--rounds", type=int, default=timing.ROUNDS)
    parser.add_argument("--small", action="store_true", help="measure the small size only")
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with gpus.device() as device:
        for row in run(device, given.rounds, not given.small, given.compile):
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
