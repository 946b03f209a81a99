"""Further pretraining seeds in one stage; the kill of one loses none that is finished."""

import torch

from tests.pipelines.small_project import Project
from tests.pipelines.test_pretrain import BARE, assert_same, outcome, scratch, wait_for


def test_a_kill_in_the_second_seed_does_not_lose_the_first(project: Project, undisturbed: Project) -> None:
    project.set({"seeds": 2})
    killed = project.start("-c", BARE, "mae")
    wait_for(killed, (scratch(project, "mae") / "seed-1" / "history.jsonl").exists)
    killed.kill()
    killed.communicate()
    done = project.run("-c", BARE, "mae")
    assert done.returncode == 0, done.stderr
    last = len(outcome(undisturbed, "mae")[1])
    assert f"pretrain@mae: Resuming from the checkpoint of step {last}.\n" in done.stderr
    assert_same(project, undisturbed, "mae")
    both, _ = outcome(project, "mae")
    left = [path.name for path in scratch(project, "mae").rglob("*")]
    assert left == ["seed-1"]

    project.set({"seeds": 1, "seed": 1})
    assert project.run("-c", BARE, "mae").returncode == 0
    alone, _ = outcome(project, "mae")
    assert both["repeats"].keys() == both["repeats_kept"].keys() == {1}
    assert all(torch.equal(both["repeats"][1][k], v) for k, v in alone["weights"].items())
    assert all(torch.equal(both["repeats_kept"][1][k], v) for k, v in alone["kept"].items())
    assert alone["repeats"] == alone["repeats_kept"] == {}


def test_a_checkpoint_holds_the_decoder_that_reconstructs(undisturbed: Project) -> None:
    mae, _ = outcome(undisturbed, "mae")
    parts = {name.split(".")[0] for name in mae["kept"]}
    assert parts == {
        "mask_token", "decoder_embed", "decoder_pos_embed", "decoder_blocks", "decoder_norm", "decoder_pred"
    }  # fmt: skip
    assert not outcome(undisturbed, "dino")[0]["kept"]


def test_a_checkpoint_holds_the_projection_head(undisturbed: Project) -> None:
    simclr, _ = outcome(undisturbed, "simclr")
    assert {name.split(".")[0] for name in simclr["kept"]} == {"head"}
    assert {"head.0.weight", "head.1.running_mean"} <= simclr["kept"].keys()
