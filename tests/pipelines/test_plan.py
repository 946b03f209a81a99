"""What is said before anything trains: what is impossible, and how long the rest takes."""

import contextlib
import re

import pytest
import torch

from data.shards import Prepared
from models import CheckpointError
from pipelines import plan
from pipelines.evaluation.supervised_training import Labelled
from pipelines.plan import durations, said_of, spoken
from pipelines.project import config, stage
from pipelines.project.stage import StageError
from tests.pipelines.small_project import METHODS, Project

STAGES = [f"{kind}@{m}" for kind in ("pretrain", "finetune") for m in METHODS]


def test_a_batch_that_is_larger_than_the_images_is_cut_to_half_of_them(project: Project) -> None:
    project.set({"simclr.batch_size": 999, "mae.batch_size": 999, "mae.accumulate": 10, "dino.batch_size": 57})
    c = config.load(project.root / "params.yaml")
    fitted = c.fitted(56)
    assert [fitted.method(m).batch_size for m in METHODS] == [28, 20, 28]
    assert c.fitted(1000) == c
    assert config.cut("mae", c, fitted, 56) == [
        "Parameter mae.batch_size is 999, but the train split has only 56 images. The batch size is reduced to 20."
    ]
    assert config.cut("mae", c, c, 56) == []


def test_what_no_class_has_enough_labels_for_is_told_before_any_training(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    project.set({"probe.shots": [1, 5, 50], "promote.labels": 50})
    labels = Prepared(stage.PREPARED).labels(Prepared(stage.PREPARED).rows("train"))
    fewest = min(list(labels).count(c) for c in set(labels))
    with pytest.raises(
        StageError, match=rf"^promote.labels is 50, and one class has {fewest} labelled images in train"
    ):
        plan.main([])


def test_weights_that_are_not_there_and_stages_that_do_not_train_are_told_before_any_training(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    with pytest.raises(StageError, match=r"^pretrain@nonsense is no stage that trains; allowed: pretrain@simclr, "):
        plan.main(["pretrain@nonsense"])
    project.set({"dino.encoder.init": "nonsense"})
    with pytest.raises(
        CheckpointError, match=r"^The weights nonsense are missing or cannot be read\. Set encoder\.init to"
    ):
        plan.main(["baseline@supervised"])


def test_every_stage_is_timed_that_will_run_and_no_other(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(project.root):
        plan.main(["finetune@mae", "baseline@supervised"])
        printed = capsys.readouterr().out.splitlines()
        assert re.fullmatch(
            r"about .+ in all on this machine, as busy as it is now: fine-tuning \d+ s, the baselines \d+ s\. "
            r"With labelled_trainings: false in params\.yaml it takes about .+",
            printed[-1],
        )
        project.set({"labelled_trainings": False})
        plan.main(["finetune@mae", "baseline@supervised"])
    assert "about" not in capsys.readouterr().out


def test_a_choice_by_few_images_is_told_beforehand(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(project.root):
        plan.main(["pretrain@mae"])
    assert (
        "val has 30 labelled images: whichever encoder is best on them may not be the best" in capsys.readouterr().out
    )


def test_twice_the_epochs_take_twice_the_time(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, on a machine that takes one second an image."""
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(plan, "per_image", lambda *_: 1.0)

    def seconds() -> dict[str, float]:
        c, prepared = config.load(), Prepared(stage.PREPARED)
        return durations(c, Labelled(prepared, c.pretrain, torch.device("cpu")), STAGES)

    once = seconds()
    images = len(Prepared(stage.PREPARED).rows("train")) // 32 * 32
    assert once["pretrain"] == 3 * 10 * images
    project.set({f"{m}.epochs": 20 for m in METHODS} | {"finetune.steps": 4, "finetune.label_samples": 2})
    twice = seconds()
    assert twice["pretrain"] == 2 * once["pretrain"]
    assert twice["finetune"] > 2 * once["finetune"]


def test_a_duration_is_said_as_people_say_it() -> None:
    assert [spoken(s) for s in (40, 700, 3 * 3600, 5 * 86400)] == ["40 s", "12 min", "3.0 h", "5 days"]
    assert "With labelled_trainings" not in said_of({"pretrain": 100.0}, can_skip=True)
