"""What is chosen for a machine."""

import pytest
import torch

from models.encoders.encoder import EncoderParams
from models.encoders.resnet import ResNetParams
from models.encoders.vit import ViTParams
from pipelines.machine import hardware


@pytest.mark.parametrize(
    ("params", "smallest", "chosen"),
    [
        (ResNetParams("resnet10", width=8), 32, torch.bfloat16),
        (ResNetParams("resnet10", width=8), 16, torch.float32),  # its last map would be 1 × 1
        (ViTParams("vit_micro", 8), 32, torch.float32),  # too narrow to gain by it
        (ViTParams("vit_tiny", 8), 32, torch.bfloat16),
    ],
)
def test_on_a_cpu_that_multiplies_bf16_auto_takes_it_where_it_pays(
    params: EncoderParams, smallest: int, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = params.build(32, (0.5,) * 3, (0.25,) * 3)
    cpu = torch.device("cpu")
    monkeypatch.setattr(hardware, "cpu_bf16", lambda: True)
    assert hardware.precision("auto", cpu, built, smallest) == chosen
    assert hardware.precision("fp32", cpu, built, smallest) == torch.float32
    monkeypatch.setattr(hardware, "cpu_bf16", lambda: False)
    assert hardware.precision("auto", cpu, built, smallest) == torch.float32
