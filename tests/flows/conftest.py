"""One project after four flow runs, which all tests of this package examine."""

import sqlite3

import pytest

from tests.flows.project import Flows
from tests.pipelines.small_project import Project, make


@pytest.fixture(scope="package")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Flows:
    """DINO cannot learn at first; then it can; then nothing is new; then another figure promotes, through DVC alone."""
    project = make(tmp_path_factory.mktemp("flows"))
    lr = 1e-3
    project.set({"dino.optim.lr": 1e30})
    broken = project.flow()
    project.set({"dino.optim.lr": lr})
    mended = project.flow()
    before = count(project)
    again = project.flow()
    after = count(project)
    project.set({"promote.for": "finetuning"})
    project.dvc("repro")
    changed = project.flow()
    project.set({"promote.for": "embeddings"})
    project.dvc("repro")
    return Flows(project, broken, mended, again, changed, before, after)


def count(project: Project) -> tuple[int, int]:
    with sqlite3.connect(project.root / "mlflow.db") as database:
        tables = ("runs", "model_versions")
        runs, versions = (database.execute(f"select count(*) from {t}").fetchone()[0] for t in tables)
    return runs, versions
