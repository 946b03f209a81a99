"""Trainings that are broken on purpose, small, and what they are called; one that has collapsed stops itself."""

import re

import pytest

from benchmarks.studies.diagnose import CASES
from models.diagnose import diagnose
from pipelines.engine import monitor
from pipelines.engine.monitor import Watch
from pipelines.project import config
from pipelines.project.stage import StageError
from tests.pipelines.engine.test_monitor import here, trained  # noqa: F401 - a fixture
from tests.pipelines.small_project import Project

BROKEN = [name for name, case in CASES.items() if case.name not in ("healthy", "overfitted")]
EPOCHS = {"simclr": 16, "mae": 6, "dino": 20}  # of six steps


@pytest.mark.parametrize("case", BROKEN)
def test_a_small_broken_training_is_named_rightly(here: Project, case: str) -> None:  # noqa: F811
    name = case.split(maxsplit=1)[0]
    here.set(CASES[case].changes | {f"{name}.epochs": EPOCHS[name]})
    rows, _ = trained(name, Watch)
    assert diagnose(name, config.load().method(name), rows).name == CASES[case].name


def test_a_training_with_hardly_any_images_in_val_is_not_judged(
    here: Project,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitor, "LEAST", 10**6)
    here.set({"mae.epochs": 6})
    rows, _ = trained("mae", Watch)
    found = diagnose("mae", config.load().method("mae"), rows)
    assert (found.name, "prepare.val" in found.change) == ("not judged", True)


def test_a_collapse_stops_the_training_where_that_is_asked(here: Project) -> None:  # noqa: F811
    here.set(CASES["dino no sharpening"].changes | {"dino.epochs": 12})
    rows, _ = trained("dino", Watch)
    here.set({"pretrain.stop_on_collapse": True})
    with pytest.raises(
        StageError,
        match=r"^Uniform collapse\. The teacher spreads its output evenly: its entropy is \d\d\.\d % of the largest "
        r"possible\. Lower dino\.teacher_temperature \(now 0\.1\).* Stopped at step (\d+) of 72 "
        r"\(pretrain\.stop_on_collapse\)\.$",
    ) as caught:
        trained("dino", Watch)
    stopped = int(re.findall(r"at step (\d+)", str(caught.value))[0])
    assert 0.3 * len(rows) <= stopped < len(rows)
