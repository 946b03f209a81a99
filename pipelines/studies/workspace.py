"""The folder of a cell: a DVC project of its own, with the stages of dvc.yaml and the cache of this project.

.scratch/studies/<method>-<digest>/
    params.yaml      the cell's
    dvc.yaml         the stages that train and measure, with this project's sources as dependencies
    data/prepared    a link to the images that all cells of a data set share
    artifacts/       what the stages make
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.project import stage
from pipelines.project.stage import StageError
from pipelines.saving.atomic_files import replace_text
from pipelines.studies.cell import Cell, Images

STAGES = ("settings", "pretrain", "probe", "finetune", "baseline")
CONFIG = "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
OWN = ("params.yaml", "data/prepared", "data/raw", "artifacts")  # dependencies that lie in the cell's folder
UP = Path("../../..")  # from there to this project
SOURCES = (
    "data/shards.py",
    "models",
    "pipelines/engine/prefetch.py",
    "pipelines/evaluation",
    "pipelines/reporting/pictures.py",
)  # of the readings
READINGS = {  # what is measured beside the probe → the files that it makes
    "projection": ["projection.csv", "projection.npz"],
    "reconstruction": ["reconstruction.json", "reconstruction.png"],
    "histogram": ["histogram.json", "histogram.png"],
    "outline": ["outline.json", "outline.png"],
}


def make(cell: Cell) -> None:
    """Make the folder, or bring it up to date. Finished stages stay."""
    pretrain = {"pretrain": [os.path.relpath(source, cell.folder) for source in cell.starts_from]}
    project(cell.folder, cell.params, pipeline(STAGES, pretrain) | readings(cell.method))
    link(cell.folder / stage.PREPARED, cell.images.folder / stage.PREPARED)


def make_images(images: Images) -> None:
    """The folder where the images of some cells are prepared; a public set that is not here is fetched into it."""
    raw = stage.RAW / images.dataset
    fetched = not raw.exists() and images.dataset in images.download
    project(images.folder, images.params, pipeline(("settings", *(["download"] if fetched else []), "prepare"), {}))
    if not fetched:
        if not raw.exists():
            raise StageError(
                f"The folder {raw} is missing. Put images there, or copy a folder of yours: foundry run FOLDER "
                f"--name {images.dataset}."
            )
        link(images.folder / raw, raw)


def project(folder: Path, params: str, stages: Mapping[str, Any]) -> None:
    """Make a folder a DVC project with these stages and params, and with the cache of this project."""
    (folder / ".dvc").mkdir(parents=True, exist_ok=True)
    cache = os.path.relpath(Path(".dvc/cache"), folder / ".dvc")
    for name, text in {
        ".dvc/config": f"{CONFIG}[cache]\n    dir = {cache}\n",
        "params.yaml": params,
        "dvc.yaml": yaml.safe_dump({"stages": stages}, sort_keys=False),
    }.items():
        if not (path := folder / name).exists() or path.read_text(encoding="utf-8") != text:
            replace_text(path, text)


def link(path: Path, target: Path) -> None:
    """Have a symbolic link at `path` that leads to `target`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    where = os.path.relpath(target, path.parent)
    if not path.is_symlink() or os.readlink(path) != where:
        path.unlink(missing_ok=True)
        path.symlink_to(where)


def pipeline(names: Sequence[str], more: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """These stages of the project's dvc.yaml, with its sources as dependencies. more: stage → further dependencies."""
    whole = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    stages = {name: whole[name] for name in names}
    for name, of in stages.items():
        body = of.get("do", of)
        body["deps"] = [*(placed(dep) for dep in body["deps"]), *more.get(name, ())]
    return stages


def readings(method: str) -> dict[str, Any]:
    """The stages that measure something beside the probe."""
    own = [str(stage.PREPARED), str(stage.artifact(method, "checkpoint.pt"))]
    return {
        name: {
            "cmd": f"python -m pipelines.studies.readings.{name} {method}",
            "deps": [*own, *(placed(dep) for dep in (*SOURCES, f"pipelines/studies/readings/{name}.py"))],
            "params": [{"artifacts/settings.yaml": [f"probe.{method}"]}],
            "outs": [str(stage.artifact(method, out)) for out in outs],
        }
        for name, outs in READINGS.items()
    }


def placed(dep: str) -> str:
    """A dependency, as seen from a cell's folder."""
    return dep if dep.startswith(OWN) else str(UP / dep)
