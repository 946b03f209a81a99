"""A study: what a paper claims, what is varied, and what would show that the claim does not hold. studies/*.yaml."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from models.methods import METHODS
from pipelines.evaluation.approach import PLAIN
from pipelines.project import ConfigError
from pipelines.project.params import read
from pipelines.project.parse import convert, refused

FOLDER = Path("studies")
SCALES = ("quick", "small", "gpu")
OTHERS = (
    "retrieval",
    "between_images",
    "seconds",
    "memory",
    "gflops",
    "accuracy",
)  # metrics without a number of labels
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

    @property
    def untrained(self) -> bool:
        """Whether it is a baseline that learnt nothing: a random encoder, or raw pixels."""
        return (self.who or "").partition("-")[0] in PLAIN


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
    scales: tuple[str, ...] = ()  # the scales at which its condition is met; [] for all


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
    best: bool = True  # whether the best level answers the question; false: the verdict of the first claim does
    own: Mapping[str, Any] = field(default_factory=dict)  # what a user's own params need for this study, such as a ViT

    def __post_init__(self) -> None:
        named = {"claims": [level for claim in self.claims for level in (claim.better, *claim.than)]}
        named["scales"] = [level for scale in self.scales.values() for level in scale.levels]
        named["paper"] = [level for of in self.paper.numbers.values() for level in of] if self.paper else []
        for key, levels in named.items():
            for level in levels:
                allow(level in self.levels, f"{key} names the level {level}", self.levels)
        for level in self.levels:
            allow("/" not in level, f"levels has the name {level}", ["a name without a slash"])
        for method in (self.method, *(level.method for level in self.levels.values() if level.method)):
            allow(method in METHODS, f"method is {method}", METHODS)
        read = [claim.metric for claim in self.claims] + [level.metric for level in self.levels.values()]
        for metric in (
            *self.metrics,
            *filter(None, read),
            *(m for scale in self.scales.values() for m in scale.metrics),
        ):
            allow(
                is_metric(metric),
                f"metrics has {metric}",
                ["linear_N", "knn_N", "finetune_N with N labels or all", *OTHERS],
            )
        allow(bool(self.metrics), "metrics is empty", ["one or more"])
        allow(all(claim.than for claim in self.claims), "claims has one without than", ["one or more levels"])

    def shown(self, scale: Scale) -> dict[str, Level]:
        """The levels that are run at this scale."""
        return {name: level for name, level in self.levels.items() if not scale.levels or name in scale.levels}


def allow(holds: bool, what: str, allowed: Iterable[str]) -> None:
    """Raises ValueError when something else is wanted."""
    if not holds:
        raise ValueError(f"{what}. Allowed: {', '.join(allowed)}")


def is_metric(name: str) -> bool:
    """Whether figures of this name can be read."""
    return bool(re.fullmatch(r"(linear|knn|finetune)_(\d+|all)|signal:\w+|measured:\w+\.\w+", name)) or name in OTHERS


def names() -> list[str]:
    """The studies that there are: SimCLR's first, then those of MAE and DINO, then those across methods."""
    return sorted((path.stem for path in FOLDER.glob("*.yaml")), key=order)


def order(name: str) -> tuple[int, int, str]:
    """Letters in the order of the papers, then numbers; names of another form come last."""
    known = re.fullmatch(r"([SMDX])(\d+)", name)
    return ("SMDX".index(known[1]), int(known[2]), name) if known else (len("SMDX"), 0, name)


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
    others = [metric for metric in study.metrics if metric.partition("_")[0] not in ("linear", "knn", "finetune")]
    accuracies: tuple[str, ...] = (f"linear_{labels}", "linear_all", "retrieval")
    if any(metric.startswith("finetune") for metric in study.metrics):
        accuracies += (f"finetune_{labels}", "finetune_all")
    levels = study.scales["small"].levels if "small" in study.scales else ()
    own = [level.metric for level in study.shown(Scale("", 1, levels=levels)).values() if level.metric]
    metrics = study.metrics if own else (*accuracies, *others)  # own: levels that say what is read of them
    return Scale(recipe="", seeds=OWN_SEEDS, set=study.own, levels=levels, metrics=tuple(dict.fromkeys(metrics)))
