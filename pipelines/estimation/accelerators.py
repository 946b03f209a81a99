"""GPUs whose speed is published: to estimate a run on a machine that is not this one."""

from dataclasses import dataclass

# Of the peak that a training run reaches: what this project aims at. By their published hours and our count: MAE ViT-L
# 29 % on TPU v3 (the paper, table 2), 10 % on V100 (its README); DINO ViT-S 10 % on V100; SimCLR ResNet-50 14 % on
# TPU v3.
UTILISATION = 0.35
PUBLISHED = "10 to 30 %"


@dataclass(frozen=True)
class GPU:
    """Dense bf16 TFLOP/s by the data sheet (fp16 with sums in fp32 where there is no bf16), and GB of memory."""

    name: str
    teraflops: float
    memory: int


KNOWN = [
    GPU("A100", 312, 80),
    GPU("H100", 989, 80),
    GPU("H200", 989, 141),
    GPU("L4", 121, 24),
    GPU("RTX 4090", 165, 24),
    GPU("V100", 125, 32),
]
DEFAULT = KNOWN[0]


def named(name: str) -> GPU | None:
    """The GPU of this name, however it is written."""
    return next((gpu for gpu in KNOWN if plain(gpu.name) == plain(name)), None)


def plain(name: str) -> str:
    """A name without case and blanks."""
    return name.lower().replace(" ", "").replace("-", "")
