"""A project whose data are prepared, and fresh copies of it."""

import contextlib
import shutil
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from data.decoding.decode import Preprocess
from data.prepare import prepare
from pipelines.registry import mlflow_store
from tests.pipelines.small_project import METHODS, ROOT, Project, make

SHORT = {
    "pretrain.log_every": 1,
    "simclr.batch_size": 32,
    "mae.batch_size": 32,
    "dino.batch_size": 32,
    "simclr.epochs": 10,
    "mae.epochs": 10,
    "dino.epochs": 10,
    "dino.head_hidden": 32,
    "mae.optim.lr": 0.001,
}


def write_digits(folder: Path, n: int, labelled: bool) -> None:
    """The first n digits as PNG, in class folders or side by side."""
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:n], digits.target[:n], strict=True)):
        path = folder / (str(label) if labelled else ".") / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype("uint8")).save(path)


def prepare_small(source: Path, out: Path) -> None:
    """As the stage does it, at 16 px."""
    prepare(
        source,
        out,
        name="digits",
        preprocess=Preprocess(16),
        val=0.1,
        test=0.2,
        max_bad_fraction=0.0,
        labels=True,
        seed=0,
        workers=1,
    )


@pytest.fixture(scope="session")
def prepared_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """300 digits of 16 × 16, in splits of about 210, 30 and 60; nothing is trained yet."""
    project = make(tmp_path_factory.mktemp("prepared"))
    project.set(SHORT)
    write_digits(project.root / "data" / "raw" / "digits", 300, labelled=True)
    with contextlib.chdir(project.root):
        prepare_small(Path("data/raw/digits"), Path("data/prepared"))
    return project


@pytest.fixture(scope="session")
def undisturbed(prepared_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The three methods trained without interruption."""
    root = tmp_path_factory.mktemp("undisturbed") / "project"
    shutil.copytree(prepared_project.root, root, ignore=shutil.ignore_patterns(".scratch"))
    project = Project(root)
    program = "import sys; sys.modules['mlflow'] = None; from pipelines.pretrain import main; "
    done = project.run("-c", program + "; ".join(f"main({m!r})" for m in METHODS))
    assert done.returncode == 0, done.stderr
    return project


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new store, and the settings of MLflow given back afterwards."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    for name, value in mlflow_store.QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


@pytest.fixture
def project(prepared_project: Project, tmp_path: Path) -> Project:
    """A copy to do anything with."""
    shutil.copytree(prepared_project.root, tmp_path / "project", ignore=shutil.ignore_patterns(".scratch"))
    return Project(tmp_path / "project")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test works in an empty folder."""
    monkeypatch.chdir(tmp_path)
