"""The flow's view of DVC's graph, and how a folder becomes the data set."""

import json
import os
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from pipelines.stage import StageError
from tests.pipelines.conftest import write_digits
from tests.pipelines.project import ROOT, Project, make

RECIPES = ", ".join(sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml")))
READ = (
    "import json; from pipelines import graph; "
    "print(json.dumps([[n.address, n.name, n.upstream, n.unchanged] for n in graph.read()]))"
)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which nothing has run."""
    return make(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The flow's module, with Prefect's files in a temporary folder."""
    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))
    from pipelines import flow  # noqa: PLC0415 - Prefect reads its settings at import

    return flow


def test_the_nodes_are_those_of_dvc_dag_each_after_what_it_waits_for(fresh: Project) -> None:
    nodes = json.loads(fresh.run("-c", READ).stdout)
    dot = fresh.dvc("dag", "report", "--dot").stdout
    edges = set(re.findall(r'^"?([^"\s]+)"? -> "?([^"\s;]+)"?;?$', dot, re.MULTILINE))
    assert {(up, address) for address, _, upstream, _ in nodes for up in upstream} == edges
    assert {address for address, *_ in nodes} == {end for edge in edges for end in edge}
    order = [address for address, *_ in nodes]
    assert all(order.index(up) < order.index(address) for up, address in edges)
    assert {name for _, name, *_ in nodes} == {address.rsplit(":", 1)[-1] for address in order}
    assert not any(unchanged for *_, unchanged in nodes)


def test_a_broken_graph_is_one_sentence(fresh: Project) -> None:
    good = (fresh.root / "dvc.yaml").read_text()
    try:
        (fresh.root / "dvc.yaml").write_text(good.replace("stages:", "stage:"))
        done = fresh.flow()
    finally:
        (fresh.root / "dvc.yaml").write_text(good)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "dvc.yaml" in done.stderr


@pytest.mark.parametrize(
    ("name", "meant"), [("Digits_2", "digits-2"), ("Meine Fotos!", "meine-fotos"), ("été", "t"), ("写真", "dataset")]
)
def test_a_slug_has_small_letters_digits_and_dashes(flow: ModuleType, name: str, meant: str) -> None:
    assert flow.slug(name) == meant


def test_a_folder_is_copied_under_dvc_and_the_recipe_taken(
    flow: ModuleType,
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project.root)
    write_digits(tmp_path / "cats", 12, labelled=False)
    Path(".scratch").mkdir(exist_ok=True)
    before = Path("params.yaml").read_text()
    flow.adopt(tmp_path / "cats", "cifar10")
    names = sorted(path.name for path in (tmp_path / "cats").iterdir())
    assert sorted(path.name for path in Path("data/raw/cats").iterdir()) == names
    assert len(names) == 12
    assert Path("data/raw/cats.dvc").exists()
    recipe = yaml.safe_load(Path("recipes/cifar10.yaml").read_text())
    assert yaml.safe_load(Path("params.yaml").read_text()) == recipe | {"dataset": "cats"}
    assert Path(".scratch/params.before.yaml").read_text() == before
    assert "params.yaml is now the recipe cifar10 for cats" in capfd.readouterr().out
    edited = Path("params.yaml").read_text().replace("seed: 0", "seed: 7")
    Path("params.yaml").write_text(edited)
    flow.adopt(tmp_path / "cats", "cifar10")
    assert Path("params.yaml").read_text() == edited
    assert capfd.readouterr().out.startswith("data/raw/cats is used as it is; to copy ")


def test_a_folder_may_be_called_by_a_number(
    flow: ModuleType, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    write_digits(tmp_path / "2024", 12, labelled=False)
    Path("data/raw/2024").mkdir(parents=True)
    Path(".scratch").mkdir(exist_ok=True)
    flow.adopt(tmp_path / "2024", "photos")
    assert yaml.safe_load(Path("params.yaml").read_text())["dataset"] == "2024"


@pytest.mark.parametrize(
    ("folder", "recipe", "said"),
    [
        ("absent", "photos", "absent is not a folder"),
        ("models", "imagenet", f"imagenet is not a recipe; there are: {RECIPES}"),
    ],
)
def test_what_cannot_be_adopted_is_one_sentence(
    flow: ModuleType, project: Project, monkeypatch: pytest.MonkeyPatch, folder: str, recipe: str, said: str
) -> None:
    monkeypatch.chdir(project.root)
    with pytest.raises(StageError, match=f"^{re.escape(said)}$"):
        flow.adopt(Path(folder), recipe)
    assert not Path("data/raw", folder).exists()


def test_a_data_set_that_is_not_here_is_one_sentence(fresh: Project) -> None:
    fresh.set({"dataset": "nowhere"})
    done = fresh.flow()
    fresh.set({"dataset": "digits"})
    assert done.returncode == 1
    assert done.stderr == "data/raw/nowhere is not here; name a folder: python -m pipelines.flow FOLDER\n"
