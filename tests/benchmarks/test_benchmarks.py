"""The benchmarks run, and what they count is so. No timing is judged here."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import report
from benchmarks.speed import gpu, smoke, steps
from benchmarks.speed.masking import MaskTokensInEncoder, encoder_flops
from models import start
from models.encoders.vit import ViTParams
from models.methods.mae import MAE, MAEParams
from models.optim import OptimParams
from pipelines.engine.prefetch import Inputs, generator
from pipelines.project.stage import TRY_AGAIN, StageError

ROOT = Path(__file__).resolve().parents[2]


def mae(arch: str, patch: int, size: int) -> MAE:
    params = MAEParams(
        ViTParams(arch, patch), epochs=1, batch_size=2, optim=OptimParams("adamw", 1e-3, 0.05),  # type: ignore[arg-type]
        decoder_dim=32, decoder_depth=1, decoder_heads=2,
    )  # fmt: skip
    with torch.device("meta" if size == 224 else "cpu"):  # the large ones are only counted
        built = start.method("mae", params, size, (0.5,) * 3, (0.25,) * 3, 0)
    assert isinstance(built, MAE)
    return built


def matmul_flops(tokens: int, dim: int, depth: int) -> int:
    """Of transformer blocks: qkv, products with keys and values, projection, and an MLP four times as wide."""
    return depth * (2 * tokens * dim * (3 + 1 + 4 + 4) * dim + 2 * 2 * tokens**2 * dim)


@pytest.mark.parametrize(("arch", "dim", "depth"), [("vit_base", 768, 12), ("vit_large", 1024, 24)])
def test_masking_three_quarters_leaves_less_than_three_tenths_of_the_encoder(arch: str, dim: int, depth: int) -> None:
    model = mae(arch, 16, 224)
    visible, every = encoder_flops(model, 49), encoder_flops(model, 196)
    assert visible == matmul_flops(1 + 49, dim, depth)
    assert every == matmul_flops(1 + 196, dim, depth)
    assert visible / every <= 0.3


def test_mask_tokens_in_the_encoder_are_all_that_the_variant_changes() -> None:
    """Where nothing but the class token is attended to, blocks being the identity, both decode the same."""
    model = mae("vit_nano", 4, 16)
    for block in model.encoder.blocks:  # the branches end in zeros
        torch.nn.init.zeros_(block.attn.proj.weight)  # type: ignore[union-attr, arg-type]
        torch.nn.init.zeros_(block.mlp.fc2.weight)  # type: ignore[union-attr, arg-type]
    dense = MaskTokensInEncoder.of(model)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    views = model.views(images, model.draw(4, 16, 16, generator(0, 0)))
    with torch.no_grad():  # the decoder then gets the same at the visible places, its own mask token elsewhere
        model.decoder_embed.weight.zero_()
        model.decoder_embed.bias.copy_(model.mask_token[0, 0])
    assert torch.allclose(model.loss(views, 0.5), dense.loss(views, 0.5), rtol=1e-6)
    assert len(list(dense.parameters())) == len(list(model.parameters())) + 1


def test_the_gpu_command_runs_in_miniature_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = ["gpu", "--tiny", "--work", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*command, "--minutes", "0"])
    with pytest.raises(SystemExit) as stopped:
        gpu.main()
    assert stopped.value.code == TRY_AGAIN
    sentence = f"\nNot finished: {', '.join(gpu.PARTS)}. Run the same command to resume.\n"
    assert capsys.readouterr() == ("Nothing is measured yet.\n", sentence)
    monkeypatch.setattr(sys, "argv", command)
    gpu.main()
    found = {part: json.loads((tmp_path / "out" / f"{part}.json").read_text()) for part in gpu.PARTS}
    assert found["simclr-200"]["loss"][-1][0] == found["simclr-200"]["steps"] == 150 // 32
    assert all(0 <= found[part]["linear, %"] <= 100 for part in found if "-" in part)
    assert 0 <= found["mae"]["input wait, %"] <= 100
    table = capsys.readouterr().out
    assert all(f"| {part} |" in table for part in report.TARGETS)
    monkeypatch.setattr(sys, "argv", [*command, "--minutes", "0"])
    gpu.main()  # all is done: nothing is left for which time would be wanted
    assert table.endswith(capsys.readouterr().out)


def test_a_table_is_markdown() -> None:
    rows = [{"what": "a", "n": 12_345, "x": 0.123456, "y": 98_765.4}]
    assert report.markdown(rows).splitlines() == [
        "| what | n | x | y |",
        "| --- | --- | --- | --- |",
        "| a | 12,345 | 0.123 | 98,765 |",
    ]


def test_a_variant_in_fp32_is_not_measured_in_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    case = next(case for case in steps.cases() if case.name == "digits simclr")
    draws = start.method("simclr", case.params, 16, (0.5,) * 3, (0.25,) * 3, 0).draw(4, 16, 16, generator(0, 0))
    inputs = Inputs(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), draws)
    cpu, seen = torch.device("cpu"), []
    variants = [steps.stepper(case, steps.Variant(p, p), inputs, cpu) for p in ("fp32", "bf16")]
    for step in (*variants, variants[0]):
        step()
        seen.append(torch.backends.cudnn.allow_tf32)
    assert seen == [False, True, False]


def test_the_smoke_test_names_the_first_check_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    quick = {name: smoke.CHECKS[name] for name in ("lock", "features", "out of memory", "labels", "DINO, fp32")}

    def broken(machine: smoke.Machine) -> str:
        raise StageError("it is broken")

    monkeypatch.setattr(smoke, "CHECKS", quick | {"broken": broken, "never": broken})
    with pytest.raises(SystemExit, match="it is broken"):
        smoke.run(tmp_path, torch.device("cpu"), tiny=True)
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == list(quick)
    assert err == "broken: FAILED after 0 s\n"
