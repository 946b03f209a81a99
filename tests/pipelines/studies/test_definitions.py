"""studies/*.yaml: each can be read, and each of its levels can be run at each of its scales."""

from pathlib import Path

import pytest
import yaml

from pipelines.project import ConfigError
from pipelines.studies import cell, study, workspace
from tests.pipelines.small_project import ROOT
from tests.pipelines.test_staleness import ALSO, uncovered

NAMES = sorted(path.stem for path in (ROOT / "studies").glob("*.yaml"))
ASKED = [*(f"S{n}" for n in range(1, 6)), *(f"M{n}" for n in range(1, 8)), *(f"D{n}" for n in range(1, 7)), "X1", "X2"]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_every_finding_has_its_study() -> None:
    assert {*ASKED, "X3"} == set(NAMES)
    assert study.names()[0] == "S1"
    assert study.names()[-1] == "X3"


@pytest.mark.parametrize("name", NAMES)
def test_every_level_can_be_run_at_every_scale(name: str) -> None:
    found = study.load(name)
    assert set(found.scales) == set(study.SCALES)
    for scale in found.scales.values():
        cells = cell.cells(name, found, scale, None)
        assert len(cells) == len(found.shown(scale)) * scale.seeds


@pytest.mark.parametrize("name", NAMES)
def test_a_claim_names_levels_and_a_difference_that_matters(name: str) -> None:
    for claim in study.load(name).claims:
        assert claim.better not in claim.than
        assert claim.by >= 0
        assert claim.claim.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_the_papers_numbers_are_of_levels_and_metrics(name: str) -> None:
    found = study.load(name)
    for of in found.paper.numbers.values() if found.paper else ():
        assert set(of) <= set(found.levels)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"claims": [{"claim": "A.", "source": "b", "better": "c", "than": ["d"], "by": 1}]}, "names the level c"),
        ({"chart": "pie"}, "Parameter chart is 'pie'. Allowed: lines, bars, matrix."),
        ({"colour": "red"}, "There is no parameter colour."),
        ({"method": "maee"}, "Parameter method is maee. Allowed: simclr, mae, dino."),
        ({"metrics": ["linar_5"]}, "Parameter metrics has linar_5. Allowed: linear_N,"),
        ({"metrics": []}, "Parameter metrics is empty."),
        ({"levels": [1]}, "Parameter levels is [1]. Allowed: a section of named values."),
    ],
)
def test_a_wrong_definition_is_one_sentence(
    change: dict[str, object], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = yaml.safe_load((ROOT / "studies/M1.yaml").read_text())
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/M1.yaml").write_text(yaml.safe_dump(given | change))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        study.load("M1")
    assert sentence in str(error.value)
    assert str(error.value).endswith("Edit studies/M1.yaml.")


@pytest.mark.parametrize("reading", workspace.READINGS)
def test_what_a_reading_imports_is_a_dependency_or_cannot_change_its_result(reading: str) -> None:
    deps = [dep.removeprefix(f"{workspace.UP}/") for dep in workspace.readings("mae")[reading]["deps"]]
    also = ALSO["probe"] | {"data.batches", "pipelines.machine"}  # the last two: of prefetch.py, which makes the chance
    assert not uncovered(f"pipelines.studies.readings.{reading}", deps, also)


def a_study(levels: dict[str, study.Level], metric: str) -> study.Study:
    """Without a claim."""
    base = vars(study.load("M1")) | {"scales": {}}
    return study.Study(**(base | {"levels": levels, "metrics": (metric,), "claims": (), "paper": None}))


def test_equal_params_are_the_same_cell_and_keep_every_wanted_stage() -> None:
    level = study.Level(set={"mae.mask_ratio": 0.75}, x=75)
    scale = study.Scale("digits", seeds=2)
    one, two = (
        cell.cells(name, a_study({label: level}, metric), scale, None)
        for name, label, metric in (("A", "75 %", "linear_5"), ("B", "base", "finetune_5"))
    )
    assert one["75 %", 0].folder == two["base", 0].folder != one["75 %", 1].folder
    both = cell.together([one, two])
    assert [each.targets for each in both] == [("probe@mae", "finetune@mae")] * 2
    assert len({each.images.folder for each in both}) == 1  # the same images for every seed


def test_a_level_that_is_not_allowed_names_its_file_and_level() -> None:
    wrong = a_study({"none": study.Level(set={"mae.mask_ratio": 1.5})}, "linear_5")
    with pytest.raises(ConfigError, match=r"mask_ratio is 1.5.*Correct studies/M1.yaml, level none."):
        cell.cells("M1", wrong, study.Scale("digits", seeds=1), None)


def test_a_file_with_a_name_of_its_own_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "studies").mkdir()
    for name in ("mine", "M10", "M2", "X1"):
        (tmp_path / f"studies/{name}.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert study.names() == ["M2", "M10", "X1", "mine"]


@pytest.mark.parametrize("name", NAMES)
def test_every_study_can_ask_its_question_of_the_users_images(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the recipe photos, 64 px. A level that such images cannot have is left out, with a sentence."""
    found = study.load(name)
    scale = study.own_scale(found, 10)
    cells = cell.cells(name, found, scale, "photos-of-mine")
    left_out = capsys.readouterr().err.splitlines()
    assert len(cells) == (len(found.shown(scale)) - len(left_out)) * study.OWN_SEEDS
    assert all(line.startswith(f"{name} ") and line.endswith(".") for line in left_out)
    for each in cells.values():
        assert each.config.dataset in ("photos-of-mine", "cifar10-10k")


def test_own_images_take_the_params_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = yaml.safe_load((ROOT / "recipes/demo.yaml").read_text()) | {"dataset": "mine", "download": []}
    params["mae"]["epochs"] = 7
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    level = {"75 %": study.Level(set={"mae.mask_ratio": 0.75})}
    base = vars(study.Study("T", "Which?", "mae", "us", "x", ("linear_5",), level, (), {}))
    of = study.Study(**base)
    (first, *_) = cell.cells("T", of, study.own_scale(of, 5), "mine").values()
    assert first.config.trainings["mae"].epochs == 7
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({key: value for key, value in params.items() if key != "mae"}))
    with pytest.raises(ConfigError, match="methods names it"):
        cell.cells("T", of, study.own_scale(of, 5), "mine")
