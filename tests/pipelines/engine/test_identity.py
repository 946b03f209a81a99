"""Checkpoints of another training run are set aside and never loaded."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.saving.checkpoints import Checkpoints, code
from tests.pipelines.engine.checkpoints import IDENTITY, assert_loads, saved
from tests.pipelines.small_project import Project

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"params": {"mae": {"optim": {"lr": 0.001, "clip": None}, "area": [0.6, 1.0], "epochs": 9}, "seed": 0}},
         "params (mae.optim.lr 0.003, now 0.001)"),
        ({"params": {"mae": {"optim": {"lr": 0.003, "clip": 3.0}, "area": [0.5, 1.0], "epochs": 8}, "seed": 1}},
         "params (mae.optim.clip None, now 3.0; mae.area [0.6, 1.0], now [0.5, 1.0]; mae.epochs 9, now 8; and 1 more)"),
        ({"data": "d" * 64}, "data (aaaaaaaaaaaa, now dddddddddddd)"),
        ({"code": {"models/methods/mae.py": "e" * 64, "models/encoders/vit.py": "c" * 64}},
         "code (models/methods/mae.py bbbbbbbbbbbb, now eeeeeeeeeeee)"),
        ({"code": {"models/methods/mae.py": "b" * 64}}, "code (models/encoders/vit.py cccccccccccc, now absent)"),
        ({"torch": "2.14.0"}, "torch (2.13.0, now 2.14.0)"),
        ({"init": "f" * 64}, "init (absent, now ffffffffffff)"),
        ({"data": "d" * 64, "torch": "2.14.0"},
         "data (aaaaaaaaaaaa, now dddddddddddd) and other torch (2.13.0, now 2.14.0)"),
    ],
)  # fmt: skip
def test_one_of_another_run_is_set_aside_and_the_sentence_names_what_differs(
    changed: dict[str, Any], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    saved(3, 6)
    other = Checkpoints("mae", IDENTITY | changed)
    assert other.load() is None
    place = other.folder / "aside"
    assert capfd.readouterr().err.splitlines() == [
        f"pretrain@mae: The checkpoint of step 6 is from a run with other {says}. It is moved to "
        f"{place / '0001-step-00000006'}.",
        f"pretrain@mae: The checkpoint of step 3 is from a run with other {says}. It is moved to "
        f"{place / '0002-step-00000003'}.",
        "pretrain@mae: No checkpoint is left. Training starts from the beginning.",
    ]
    assert not other.history.exists()
    assert other.run != Checkpoints("mae", IDENTITY).run


def test_once_made_nothing_of_another_run_is_left_for_the_tracker_to_find() -> None:
    saved(3, 6)
    other = Checkpoints("mae", IDENTITY | {"torch": "2.14.0"})  # not loaded yet
    assert {path.name for path in other.folder.iterdir()} == {"aside"}


def test_going_back_to_earlier_params_goes_on_where_they_were() -> None:
    other = IDENTITY | {"torch": "2.14.0"}
    ours, _ = saved(3, 6), saved(2, 4, 7, identity=other)
    assert_loads(6)
    assert ours.steps() == ["step-00000003", "step-00000006"]
    assert [path.name.partition("-")[2] for path in ours.aside()] == ["step-00000007", "step-00000004"]
    Checkpoints("mae", other).clear()  # the other run ends meanwhile
    assert_loads(6)


def test_no_more_than_two_stay_aside() -> None:
    for version in range(5):
        saved(2, 4, identity=IDENTITY | {"torch": str(version)})
    aside = Checkpoints("mae", IDENTITY).aside()
    assert [path.name for path in aside] == ["0009-step-00000004", "0010-step-00000002"]


def test_nothing_but_what_is_aside_remains_of_a_run_that_has_ended() -> None:
    saved(3, identity=IDENTITY | {"torch": "2.14.0"})
    checkpoints = saved(3, 6)
    checkpoints.run.write_text("id")
    checkpoints.clear()
    assert [path.name for path in checkpoints.folder.iterdir()] == ["aside"]


def test_the_code_is_what_dvc_trains_a_method_anew_for(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    before = code("simclr")
    changing = (
        "models/views/augmentation.py",
        "models/methods/simclr.py",
        "data/batches.py",
        "data/shards.py",
        "pipelines/engine/loop.py",
    )
    for file in (*changing, "models/methods/mae.py", "models/evaluation/probe.py"):
        with Path(file).open("a") as f:
            f.write("# another line\n")
    after = code("simclr")
    assert before.keys() == after.keys()
    assert {file for file in before if before[file] != after[file]} == set(changing)
