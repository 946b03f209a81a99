"""A cell: one level of a study with one seed. It is an ordinary run of the pipeline with params of its own."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from models.methods import BASELINES, METHODS
from pipelines.project import ConfigError, config, params, recipes, stage
from pipelines.project.config import Config
from pipelines.studies.study import Level, Scale, Study

CELLS = stage.SCRATCH / "studies"
START = "cell:"  # of encoder.init: the encoder that another level has trained, with the same seed
PREPARING = ("dataset", "prepare", "seed")  # what decides the prepared images


@dataclass(frozen=True)
class Images:
    """The prepared images of a data set, which all of its cells share. params: the text of a params.yaml."""

    params: str
    dataset: str
    download: tuple[str, ...]
    size: int  # px of a side

    def __str__(self) -> str:
        return f"images of {self.dataset}, {self.size} px"

    @property
    def folder(self) -> Path:
        """A project of its own."""
        given = yaml.safe_load(self.params)
        return CELLS / f"images-{digest(repr([given.get(key) for key in PREPARING]))}"


@dataclass(frozen=True)
class Cell:
    """The same params are the same cell, whichever studies and levels ask for it.

    params: the text of its params.yaml; method: that is trained; targets: the stages that are wanted of it;
    title: for people, `M1 75 %, seed 0`; starts_from: the checkpoint of another cell, if any.
    """

    params: str
    method: str
    seed: int
    targets: tuple[str, ...]
    title: str
    images: Images
    starts_from: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path:
        """A project of its own."""
        return CELLS / f"{self.method}-{digest(self.params)}"

    @property
    def config(self) -> Config:
        """Its params, checked."""
        return config.checked(yaml.safe_load(self.params))

    def artifact(self, name: str) -> Path:
        """Where the stages of its method leave a file."""
        return self.folder / stage.artifact(self.method, name)


Cells = dict[tuple[str, int], Cell]  # level, seed → the cell


def cells(name: str, study: Study, scale: Scale, dataset: str | None) -> Cells:
    """Every level with every seed. dataset: the user's own, with the project's params. Raises ConfigError."""
    base = base_params(scale.recipe, dataset)
    if study.method not in base:
        raise ConfigError(f"The study {name} needs the section {study.method} in params.yaml.")
    metrics = scale.metrics or study.metrics
    found: Cells = {}
    for label, level in study.shown(scale).items():
        method, where = level.method or study.method, f"studies/{name}.yaml, level {label}"
        values = {**scale.set, **level.set}
        for seed in range(base["seed"], base["seed"] + scale.seeds):
            try:
                given = with_values(base, values, where)
                images = images_of(base, given)
                source = started(given[method]["encoder"], seed, found, where)
                text = written(given, method, seed, where)
            except ConfigError as sentence:
                if dataset is None:
                    raise
                print(f"{name} {label} is left out. {sentence}", file=sys.stderr)  # the user's images cannot have it
                break
            targets = wanted(study, level, metrics, method)
            found[label, seed] = Cell(text, method, seed, targets, f"{name} {label}, seed {seed}", images, source)
    if not found:
        raise ConfigError(f"No level of the study {name} can be run on {dataset}.")
    return found


def images_of(base: Mapping[str, Any], given: Mapping[str, Any]) -> Images:
    """The prepared images of these params: the same for every level and seed that prepares them so."""
    dataset = given["dataset"]
    download = base["download"] if dataset == base["dataset"] else []
    params = {**base, "dataset": dataset, "download": download, "prepare": given["prepare"]}
    return Images(
        yaml.safe_dump(params, sort_keys=True, allow_unicode=True), dataset, tuple(download), given["prepare"]["size"]
    )


def started(encoder: dict[str, Any], seed: int, others: Cells, where: str) -> tuple[Path, ...]:
    """The checkpoint that `encoder.init: cell:LEVEL` means, as a path in it; the levels before this one are known."""
    level = str(encoder.get("init") or "")
    if not level.startswith(START):
        return ()
    if (level := level.removeprefix(START), seed) not in others:
        raise ConfigError(f"There is no level {level} above. Correct the key encoder.init in {where}.")
    source = others[level, seed].artifact("checkpoint.pt")
    encoder["init"] = str(Path("..", source.relative_to(CELLS)))
    return (source,)


def base_params(recipe: str | None, dataset: str | None) -> dict[str, Any]:
    """The params that every level starts from: the recipe's, or for the user's own images those of the project."""
    if dataset is None:
        return dict(yaml.safe_load(recipes.read(str(recipe))))
    config.check_name(dataset, "--dataset")
    given = params.read(config.PARAMS)
    if given.get("dataset") == dataset:
        config.load()  # its messages name the file
        return dict(given)
    return dict(yaml.safe_load(recipes.of_own_folder(recipes.read("photos"), dataset)))


def with_values(base: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The params with these values at dotted keys. Raises ConfigError where a section is missing."""
    changed = deepcopy(dict(base))
    for key, value in values.items():
        *sections, last = key.split(".")
        section: Any = changed
        if sections and sections[0] in METHODS and sections[0] not in changed:
            raise ConfigError(f"The params have no section {sections[0]}, which {where} needs. Add it to params.yaml.")
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            raise ConfigError(f"The params have no section {'.'.join(sections)}. Correct the key {key} in {where}.")
        section[last] = value
    return changed


def written(given: Mapping[str, Any], method: str, seed: int, where: str) -> str:
    """The text of params.yaml for one method and one seed. Raises ConfigError where a value is not allowed."""
    others = {name for name in METHODS if name != method}  # so that equal training runs are equal cells
    one = {key: value for key, value in given.items() if key not in others}
    one |= {"methods": [method], "seed": seed, "seeds": 1, "download": []}
    try:
        config.checked(one)
    except ConfigError as sentence:
        raise ConfigError(f"{sentence} Correct {where}.") from None
    return yaml.safe_dump(one, sort_keys=True, allow_unicode=True)


def wanted(study: Study, level: Level, metrics: Sequence[str], method: str) -> tuple[str, ...]:
    """The stages whose results are read."""
    read = [level.metric] if level.metric else metrics
    targets = [f"probe@{method}"]
    baseline = (level.who or "").partition("-")[0]
    if baseline in BASELINES:
        targets.append(f"baseline@{baseline}")
    elif any(metric.startswith("finetune") for metric in read):
        targets.append(f"finetune@{method}")
    return (*targets, *([study.reading] if study.reading else []))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def together(several: Sequence[Cells]) -> list[Cell]:
    """The different cells of several studies, each with all stages that any of them wants."""
    found: dict[Path, Cell] = {}
    for cell in (cell for some in several for cell in some.values()):
        known = found.setdefault(cell.folder, cell)
        found[cell.folder] = replace(known, targets=tuple(dict.fromkeys((*known.targets, *cell.targets))))
    return list(found.values())
