"""What is said before anything trains: what is impossible, and how long the rest takes."""

import contextlib
import json
import re
import time

import pytest
import torch

from data.shards import Prepared
from models import CheckpointError
from pipelines import plan
from pipelines.estimation import trainings
from pipelines.evaluation.supervised.training import Labelled
from pipelines.project import config, stage
from pipelines.project.stage import ESTIMATE, StageError
from tests.pipelines.small_project import METHODS, Project


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
        StageError, match=rf"^Parameter promote\.labels is 50\. .*one class has {fewest} labelled images in train"
    ):
        plan.main([])


def test_weights_that_are_not_there_and_stages_that_do_not_train_are_told_before_any_training(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    with pytest.raises(
        StageError, match=r"^There is no stage pretrain@nonsense that trains\. Allowed: pretrain@simclr, "
    ):
        plan.main(["pretrain@nonsense"])
    project.set({"dino.encoder.init": "nonsense"})
    with pytest.raises(
        CheckpointError, match=r"^The weights nonsense are missing or cannot be read\. Set encoder\.init to"
    ):
        plan.main(["baseline@supervised"])


def test_every_stage_is_timed_that_will_run_and_no_other(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(project.root):
        plan.main(["finetune@mae", "baseline@supervised"])
        (line,) = re.findall(r"^This run .*$", capsys.readouterr().err, re.MULTILINE)
        assert re.fullmatch(
            r"This run will take about [\d.]+ (s|min) on this machine(, as busy as it is now)? "
            r"\(fine-tuning \d+ s, baselines \d+ s, the rest \d+ s\), "
            r"\d\.\d GB of memory and \d+ MB of disk\.",
            line,
        )
        found = json.loads(ESTIMATE.read_text())
        below = {"register@mae", "export@mae", "archive@mae", "promote", "report"}
        assert set(found["stages"]) == {"finetune@mae", "baseline@supervised"} | below
        assert 0 < max(found["stages"].values()) < found["seconds"] > found["without_labels"]
        assert found["memory_bytes"] > found["disk_bytes"] > 1e6
        assert abs(found["made"] - time.time()) < 100
        project.set({"labelled_trainings": False})
        plan.main(["finetune@mae", "baseline@supervised"])
    assert "about" not in capsys.readouterr().err


def test_a_choice_by_few_images_is_told_beforehand(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(project.root):
        plan.main(["pretrain@mae"])
    said = "The val split has only 30 labelled images, so the champion may not be the best encoder."
    assert said in capsys.readouterr().err


def test_twice_the_epochs_are_twice_the_steps(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)

    def images() -> dict[str, float]:
        c, prepared = config.load(), Prepared(stage.PREPARED)
        found = trainings.amounts(c, Labelled(prepared, c.pretrain, torch.device("cpu")))
        works = trainings.trainings(c, 10, labelled=True)
        return {f"{work.stage} {work.who}": found[work.stage, work.who].steps * work.batch for work in works}

    once = images()
    train = len(Prepared(stage.PREPARED).rows("train"))
    assert [once[f"pretrain@{m} {m}"] for m in METHODS] == [10 * (train // 32 * 32)] * 3
    project.set({f"{m}.epochs": 20 for m in METHODS} | {"finetune.steps": 4, "finetune.label_samples": 2})
    twice = images()
    assert twice["pretrain@mae mae"] == 2 * once["pretrain@mae mae"]
    assert twice["finetune@mae mae"] > 2 * once["finetune@mae mae"]
