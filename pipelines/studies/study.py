"""A study: what a paper claims, what is varied, and what would show that the claim does not hold. studies/*.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines.project import ConfigError
from pipelines.project.params import read
from pipelines.project.parse import convert, refused

FOLDER = Path("studies")
SCALES = ("quick", "small", "gpu")
OWN_SEEDS = 3  # the fewest that decide anything
Chart = Literal["lines", "bars", "matrix"]


@dataclass(frozen=True)
class Level:
    """One setting of what is varied."""

    set: Mapping[str, Any] = field(default_factory=dict)  # keys of params.yaml and their values
    x: float | None = None  # its place on the axis, where the factor is a number
    line: str = ""  # the line of the chart that it belongs to
    method: str | None = None  # the method to train; null: the study's
    who: str | None = None  # whose scores are read, such as supervised-simclr; null: the method's
    metric: str | None = None  # what is read; null: every metric of the study
    source: bool = False  # only trained, for other levels to start from


@dataclass(frozen=True)
class Claim:
    """A finding in one sentence, and the difference that decides whether it holds here."""

    claim: str  # the finding, in one sentence
    source: str  # where the paper states it: section, table or figure
    better: str  # the level that should be better
    than: tuple[str, ...]  # the levels that should be worse, each of them
    by: float  # the smallest difference that matters, in units of the metric
    metric: str | None = None  # null: the first metric of the study
    lower: bool = False  # whether a lower figure is better


@dataclass(frozen=True)
class Paper:
    """The paper's own numbers: metric → level → figure."""

    what: str  # the network, the data and the figure: `ViT-L, ImageNet-1K, 800 epochs; top-1 accuracy in %`
    numbers: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Scale:
    """How large a study is run: the recipe, and what differs from it for every level."""

    recipe: str  # a file of recipes/
    seeds: int  # training runs per level
    set: Mapping[str, Any] = field(default_factory=dict)
    levels: tuple[str, ...] = ()  # [] for all
    metrics: tuple[str, ...] = ()  # instead of the study's, in their order


@dataclass(frozen=True)
class Study:
    """Everything that is decided before a study is run."""

    title: str
    question: str  # what a user asks of their own images
    method: str
    source: str  # the paper
    factor: str  # what is varied: the name of the axis
    metrics: tuple[str, ...]  # the first one decides claims that name none
    levels: Mapping[str, Level]
    claims: tuple[Claim, ...]
    scales: Mapping[str, Scale]
    chart: Chart = "lines"
    paper: Paper | None = None
    reading: Literal["projection", "reconstruction", "outline", "histogram"] | None = (
        None  # what is measured beside the probe
    )
    curves: tuple[str, ...] = ()  # signals of the training history to draw
    log_x: bool = False  # whether the axis is logarithmic
    own: Mapping[str, Any] = field(default_factory=dict)  # what a user's own params need for this study, such as a ViT

    def __post_init__(self) -> None:
        for claim in self.claims:
            for level in (claim.better, *claim.than):
                if level not in self.levels:
                    raise ValueError(f"claims names the level {level}. Allowed: {', '.join(self.levels)}")
        for scale in self.scales.values():
            for level in scale.levels:
                if level not in self.levels:
                    raise ValueError(f"scales names the level {level}. Allowed: {', '.join(self.levels)}")

    def shown(self, scale: Scale) -> dict[str, Level]:
        """The levels that are run at this scale."""
        return {name: level for name, level in self.levels.items() if not scale.levels or name in scale.levels}


def names() -> list[str]:
    """The studies that there are: SimCLR's first, then those of MAE and DINO, then those across methods."""
    return sorted((path.stem for path in FOLDER.glob("*.yaml")), key=order)


def order(name: str) -> tuple[int, int]:
    return "SMDX".find(name[:1]), int(name[1:] or 0)


def load(name: str) -> Study:
    """studies/<name>.yaml. Raises ConfigError with one sentence."""
    if name not in names():
        raise ConfigError(f"There is no study {name}. Allowed: {', '.join(names())}.")
    path = FOLDER / f"{name}.yaml"
    try:
        study: Study = convert(read(path), Study, "")
    except ConfigError as sentence:
        raise ConfigError(f"{sentence} Edit {path}.") from None
    return study


def scale_of(study: Study, name: str) -> Scale:
    """The scale of this name. Raises ConfigError."""
    if name not in study.scales:
        raise refused("--scale", name, ", ".join(study.scales))
    return study.scales[name]


def own_scale(study: Study, labels: int | str) -> Scale:
    """For the user's own images: their params, three seeds, and the accuracy at promote.labels, if there are labels."""
    accuracy = {"linear", "knn", "finetune", "retrieval"}
    costs = [metric for metric in study.metrics if metric.partition("_")[0] not in accuracy]
    metrics = (f"linear_{labels}", "linear_all", "retrieval", *costs)
    levels = study.scales["small"].levels if "small" in study.scales else ()
    return Scale(recipe="", seeds=OWN_SEEDS, set=study.own, levels=levels, metrics=tuple(dict.fromkeys(metrics)))
