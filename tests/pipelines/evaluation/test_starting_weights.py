"""A pretraining that continues from given weights: what those weights do by themselves stands beside it."""

import contextlib
import json
from dataclasses import replace

import pytest
import torch

from models import saved
from pipelines import finetune, pretrain, probe
from pipelines.evaluation import starting_weights
from pipelines.evaluation.contest import contests
from pipelines.evaluation.continued import continued
from pipelines.evaluation.scores import Score
from pipelines.project import stage
from pipelines.reporting import results, tables
from pipelines.saving.pretrained import Pretrained
from tests.pipelines.evaluation.test_contest import scores
from tests.pipelines.small_project import Project


def test_a_continued_pretraining_that_hurts_is_called_so(
    project: Project, undisturbed: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """An MAE of ten epochs. Its training goes on with a learning rate that ruins it, with three seeds."""
    own = Pretrained.read(undisturbed.artifact("mae", "checkpoint.pt"))
    saved.save(project.root / "weights" / "start", own.spec, own.weights)
    project.set(
        {
            **{"methods": ["mae"], "seeds": 3, "mae.encoder.init": "weights/start", "mae.epochs": 2},
            **{"mae.optim.lr": 0.3, "probe.shots": [1], "probe.C": [1.0]},
            **{"finetune.shots": [], "finetune.pseudolabel": False},
        }
    )
    with contextlib.chdir(project.root):
        for step in (pretrain, probe, finetune):
            step.main("mae")
        stage.PROMOTED.write_text(json.dumps({"champion": "mae", "reason": "It is alone."}))
        r = results.read()
        left = Pretrained.read(stage.artifact("mae", "checkpoint.pt"))
        initial = starting_weights.encoder("mae", r.config, r.prepared.manifest, left)
    assert initial is not None
    assert not initial.training
    assert all(torch.equal(v, own.weights[k]) for k, v in initial.state_dict().items())
    v = r.verdict()
    assert v.answer.startswith("Pretraining did not help")
    assert v.continued[0].startswith("Continuing pretraining hurt MAE at ")
    assert ": the starting weights are better (" in v.continued[0]
    rows = [(row["encoder"], row["classifier"]) for row in tables.accuracies(r)]
    assert {("Starting weights of MAE", how) for how in ("linear probe", "kNN", "fine-tuning")} <= set(rows)
    assert {s.seed for s in r.scores if (s.who, s.how) == ("initial-mae", "linear")} == {r.config.seed}
    assert {s.seed for s in r.scores if (s.who, s.how) == ("initial-mae", "finetune")} == {0, 1, 2}
    assert "retrieval" in r.figures["initial-mae"]

    # Weights that changed meanwhile are not those that the training started from.
    saved.save(project.root / "weights" / "start", own.spec, {k: 2 * w for k, w in own.weights.items()})
    capsys.readouterr()
    with contextlib.chdir(project.root):
        assert starting_weights.encoder("mae", r.config, r.prepared.manifest, left) is None
    assert capsys.readouterr().err.startswith(
        "The starting weights of MAE are not measured. The weights weights/start have changed since the pretraining "
        "started from them. To start from the present weights, run `dvc repro -f pretrain@mae`."
    )


def test_it_says_where_continuing_helped_and_where_nobody_knows() -> None:
    measured = scores("mae", "linear", 85, 90, 92) + scores("initial-mae", "linear", 60, 90, 97)
    assert continued(measured, ["mae", "dino"]) == (
        "Continuing pretraining helped MAE at 1 label per class, compared with the starting weights "
        "(85.0 % against 60.0 % of test images).",
        "Continuing pretraining hurt MAE with all labels: the starting weights are better "
        "(97.0 % against 92.0 % of test images).",
        "Continuing pretraining made no clear difference to MAE at 10 labels per class, compared with the starting "
        "weights (90.0 % against 90.0 % of test images).",
    )
    assert continued(scores("mae", "linear", 85, 90, 92), ["mae"]) == ()
    assert continued([s for s in measured if (s.seed, s.labels) == (0, "all")], ["mae"]) == (
        "With one seed, MAE after continued pretraining did worse than its starting weights with all labels "
        "(92.0 % against 97.0 % of test images).",
    )


def test_frozen_starting_weights_have_one_seed_and_meet_every_seed() -> None:
    initial = [s for s in scores("initial-mae", "linear", 60, 60, 60) if s.seed == 0]
    measured: list[Score] = [*scores("mae", "linear", 85, 90, 92), *initial]
    found = contests(measured)
    assert [str(c.theirs) for c in found] == 3 * ["starting weights of MAE + linear probe"]
    assert {c.difference.seeds for c in found} == {3}
    assert replace(initial[0], seed=1) not in measured
