"""A folder of the user's: copied as it is, never replaced, never mistaken for another."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from data.sources import fetch
from pipelines.orchestration import adopt
from pipelines.project import ConfigError, recipes, stage
from pipelines.project.stage import StageError
from tests.pipelines.conftest import write_digits
from tests.pipelines.small_project import ROOT, Project

RECIPES = ", ".join(sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml")))
Files = dict[str, bytes]


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project to stand in, without images."""
    monkeypatch.chdir(project.root)
    stage.SCRATCH.mkdir(exist_ok=True)
    Path("data/raw/digits").rename(".scratch/digits")
    return project


def own(folder: Path, n: int = 12) -> Files:
    """Write n images in class folders; what is in them."""
    write_digits(folder, n, labelled=True)
    return files(folder)


def files(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def test_a_folder_is_copied_under_dvc_and_the_recipe_taken(
    here: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = Path("params.yaml").read_text()
    given = own(tmp_path / "cats")
    adopt.adopt(tmp_path / "cats", "cifar10")
    assert files(Path("data/raw/cats")) == given
    assert Path("data/raw/cats.dvc").exists()
    assert not list(Path(".dvc/cache").rglob("*.tmp"))  # a hidden second copy of every image
    recipe = yaml.safe_load(Path("recipes/cifar10.yaml").read_text())
    assert yaml.safe_load(Path("params.yaml").read_text()) == recipe | {"dataset": "cats", "download": []}
    assert Path(".scratch/params.before.yaml").read_text() == before
    assert "params.yaml is now the recipe cifar10 for cats" in capfd.readouterr().out
    edited = Path("params.yaml").read_text().replace("seed: 0", "seed: 7")
    Path("params.yaml").write_text(edited)
    adopt.adopt(tmp_path / "cats", "cifar10")
    assert Path("params.yaml").read_text() == edited
    printed = capfd.readouterr()
    assert printed.out == f"data/raw/cats holds the images of {tmp_path}/cats already\n"
    assert "params.yaml is for cats already and stays as it is: --recipe cifar10 is not applied." in printed.err
    adopt.adopt(tmp_path / "cats")
    assert "not applied" not in capfd.readouterr().err
    Path("params.yaml").unlink()
    adopt.adopt(tmp_path / "cats", "cifar10")
    assert yaml.safe_load(Path("params.yaml").read_text()) == recipe | {"dataset": "cats", "download": []}


def test_no_params_that_somebody_edited_are_lost(here: Project, tmp_path: Path) -> None:
    kept = []
    for name in ("cats", "dogs", "cats"):
        own(tmp_path / name)
        with Path("params.yaml").open("a") as file:
            file.write(f"# mine, before {name}\n")
        kept.append(Path("params.yaml").read_bytes())
        adopt.adopt(tmp_path / name, "photos")
    assert sorted(path.read_bytes() for path in Path(".scratch").glob("params.before*.yaml")) == sorted(kept)


def test_a_folder_may_be_called_by_a_number(here: Project, tmp_path: Path) -> None:
    own(tmp_path / "2024")
    adopt.adopt(tmp_path / "2024", "photos")
    assert yaml.safe_load(Path("params.yaml").read_text())["dataset"] == "2024"


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_a_folder_may_be_called_as_a_public_set(here: Project, tmp_path: Path, name: str) -> None:
    given = own(tmp_path / name)
    adopt.adopt(tmp_path / name, name)
    params = yaml.safe_load(Path("params.yaml").read_text())
    assert (params["dataset"], params["download"]) == (name, [])
    assert files(Path("data/raw", name)) == given
    assert "download" not in here.dvc("stage", "list", "--all").stdout
    with pytest.raises(StageError, match=f"^The folder data/raw/{name} was not fetched by this project"):
        adopt.check_download([name])


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_neither_dvc_nor_the_flow_replaces_a_folder_by_a_public_set(here: Project, name: str) -> None:
    given = own(Path("data/raw", name))
    params = Path("params.yaml").read_text()
    done = here.flow("--recipe", name)
    assert done.returncode == 1
    assert re.match(
        rf"The folder data/raw/{name} was not fetched by this project, .* python -m pipelines.flow data/raw/",
        done.stderr,
    )
    assert Path("params.yaml").read_text() == params
    recipes.write(recipes.read(name), "the recipe")
    for command in (["prepare"], ["--force", f"download@{name}"]):
        assert here.dvc("repro", *command).returncode != 0
        assert files(Path("data/raw", name)) == given
    adopt.adopt(Path("data/raw", name), name)
    for way in (["settings"], ["prepare", "--dry"]):  # a dry run reads the settings that the stage before it wrote
        assert here.dvc("repro", *way).returncode == 0
    assert files(Path("data/raw", name)) == given


def test_images_beside_those_of_a_public_set_stay(here: Project) -> None:
    recipes.write(recipes.read("digits"), "the recipe")
    assert here.dvc("repro", "download@digits").returncode == 0
    Path("data/raw/digits/mine.png").write_bytes(b"mine")
    assert here.dvc("repro", "--force", "download@digits").returncode != 0
    assert Path("data/raw/digits/mine.png").read_bytes() == b"mine"
    assert len(files(Path("data/raw/digits"))) == 1798


def other(folder: Path) -> None:
    own(folder, 13)


def changed(folder: Path) -> None:
    own(folder)
    path = folder / "0" / "0000.png"
    path.write_bytes(path.read_bytes()[::-1])


@pytest.mark.parametrize("write", [other, changed])
def test_a_second_folder_of_the_same_name_is_not_mistaken_for_the_first(
    here: Project, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    given = own(tmp_path / "first" / "images")
    adopt.adopt(tmp_path / "first" / "images", "photos")
    second = tmp_path / "second" / "images"
    write(second)
    with pytest.raises(
        StageError, match=rf"^The folder data/raw/images holds other images than {second}. To keep both, .* --name"
    ):
        adopt.adopt(second, "photos")
    adopt.adopt(second, "photos", "images-2")
    assert files(Path("data/raw/images")) == given
    assert files(Path("data/raw/images-2")) == files(second)


def test_a_public_set_is_not_mistaken_for_a_folder_of_its_name(here: Project, tmp_path: Path) -> None:
    fetch("digits", Path("data/raw/digits"))
    own(tmp_path / "digits")
    with pytest.raises(StageError, match=r"^The folder data/raw/digits holds other images than "):
        adopt.adopt(tmp_path / "digits", "photos")


def test_odd_files_are_left_out_of_the_copy_and_named(
    here: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "odd"
    given = own(folder)
    outside = own(tmp_path / "outside" / "9x")
    (folder / "linked").symlink_to(tmp_path / "outside" / "9x")
    make_odd(folder)
    adopt.adopt(folder, "photos")
    linked = {f"linked/{name}": data for name, data in outside.items()}
    assert files(Path("data/raw/odd")) == given | linked
    sentence = f"3 of 27 entries of {folder} are left out of the copy: caf\\xe9.png (the name is not valid UTF-8), "
    assert sentence + "dangling.png (dangling symlink), pipe.png (not a regular file)" in capfd.readouterr().err


def make_odd(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to("nowhere")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).write_bytes(b"")


def test_what_dvc_cannot_record_is_one_sentence(here: Project) -> None:
    own(Path("data/raw/odd"))
    make_odd(Path("data/raw/odd"))
    recipes.write(recipes.of_own_folder(recipes.read("photos"), "odd"), "the recipe")
    done = here.flow()
    assert done.returncode == 1
    assert re.match(
        "The folder data/raw/odd holds 3 entries that DVC cannot record, such as data/raw/odd/.*: dangling ",
        done.stderr,
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("folder", "recipe", "sentence"),
    [
        ("absent", "photos", "The path absent is not a folder. Name a folder of images."),
        ("models", "imagenet", f"There is no recipe imagenet. Allowed: {RECIPES}."),
    ],
)
def test_what_cannot_be_adopted_is_one_sentence(here: Project, folder: str, recipe: str, sentence: str) -> None:
    with pytest.raises(StageError, match=f"^{re.escape(sentence)}$"):
        adopt.adopt(Path(folder), recipe)
    assert not Path("data/raw", folder).exists()


def test_a_name_that_cannot_name_a_model_is_one_sentence(here: Project, tmp_path: Path) -> None:
    own(tmp_path / "cats")
    with pytest.raises(ConfigError, match=r"^Option --name is \.\./x\. Allowed: letters"):
        adopt.adopt(tmp_path / "cats", "photos", "../x")
    assert not Path("data/x").exists()
