"""params.yaml → frozen, typed dataclasses whose values are checked against each other."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from data.shards import Manifest
from models import start
from models.method import MethodParams, Pretraining
from models.methods import BASELINES, METHODS
from pipelines.project import ConfigError
from pipelines.project.params import read
from pipelines.project.parse import convert, refused
from pipelines.project.stage import StageError
from pipelines.project.supervision import (
    BaselineLabels,
    BaselineParams,
    FinetuneParams,
    FixMatchBaseline,
    LabelSamples,
    PseudoLabelBaseline,
    SupervisedBaseline,
)

PARAMS = Path("params.yaml")


@dataclass(frozen=True)
class PrepareParams:
    size: int  # side of the stored square images, px
    filter: Literal["bilinear", "bicubic", "lanczos", "box"] = "bilinear"  # how images are resized
    range: Literal["auto"] | tuple[float, float] = "auto"  # black and white values of images with more than 8 bits
    labels: bool = True  # read class names from folder names; false: use no labels
    val: float = 0.1  # share of the images for validation, where the folder has no validation split
    test: float = 0.2  # share of the images for testing, where the folder has no test split
    max_bad_fraction: float = 0.1  # largest share of the files that may be unusable, 0 to 1


@dataclass(frozen=True)
class PretrainParams:
    precision: Literal["auto", "fp32", "bf16", "fp64"] = "auto"  # number format; auto: bf16 where it is faster
    compile: Literal["auto", True, False] = "auto"  # use torch.compile; auto: only in runs long enough to save time
    processes: int = 1  # processes that share a batch, one per GPU; for several machines use torchrun
    sharded: bool = False  # split the parameters over the processes (FSDP2), for encoders too large for one GPU
    shuffle: Literal["global", "shards"] = "global"  # order of the images; shards: for more images than memory holds
    log_every: int = 10  # steps between two rows of the history
    watch: float | None = None  # epochs between two health checks; null: 25 checks per training run
    stop_on_collapse: bool = False  # end a training run that has collapsed, from 30 % of its steps on
    checkpoint_minutes: float = 5.0  # minutes between two checkpoints


@dataclass(frozen=True)
class ProbeParams:
    shots: tuple[int, ...] = (1, 2, 5, 10, 50)  # labels per class to measure with, if every class has them
    label_samples: int = 5  # random choices of labelled images, per count
    C: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0, 1000.0)  # inverse regularisation, picked on held-out images
    neighbours: int = 20  # how many neighbours vote in kNN (k)
    temperature: float = 0.07  # temperature of the neighbours' votes in kNN


@dataclass(frozen=True)
class ExportParams:
    precision: Literal["fp32", "fp16", "int8"] = "fp32"  # number format that is served; refused if it costs accuracy


@dataclass(frozen=True)
class PromoteParams:
    for_: Literal["embeddings", "finetuning"]  # use: frozen (embeddings), or trained further (finetuning)
    labels: int | Literal["all"]  # labels per class at which validation accuracy decides the champion


@dataclass(frozen=True)
class Sections:
    """What params.yaml holds beside the sections of the methods."""

    dataset: str  # name of the data set; its images are in `data/raw/<dataset>`
    download: tuple[Literal["digits", "digits-writers", "cifar10", "stl10", "imagenette"], ...]  # public set to fetch
    seed: int  # first random seed
    seeds: int  # training runs of each method and baseline, from seed on; the first one is registered
    methods: tuple[str, ...]  # methods to pretrain, in the order of the report; each needs its own section
    labelled_trainings: bool  # train fine-tuning and baselines; false: only measure frozen features, which is faster
    prepare: PrepareParams  # reading, resizing and splitting the images
    pretrain: PretrainParams  # how every method trains on this machine
    probe: ProbeParams  # measuring frozen features with a linear probe and kNN
    finetune: FinetuneParams  # fine-tuning the pretrained encoders with labels
    baseline: BaselineLabels  # which labels the trained baselines get
    supervised: SupervisedBaseline  # baseline: supervised training from scratch
    pseudolabel: PseudoLabelBaseline  # baseline: pseudo-labels from scratch
    fixmatch: FixMatchBaseline  # baseline: FixMatch from scratch
    export: ExportParams  # the ONNX file that is served
    promote: PromoteParams  # how the champion is chosen


@dataclass(frozen=True)
class Config(Sections):
    trainings: Mapping[str, MethodParams]  # of every method that has a section, pretrained or not

    def method(self, name: str) -> MethodParams:
        """The section of a method. Raises ConfigError when there is none."""
        if name not in self.trainings:
            raise ConfigError(f"There is no section {name} in params.yaml. It has: {', '.join(self.trainings)}.")
        return self.trainings[name]

    def having(self, name: str, params: MethodParams) -> "Config":
        """A copy with other params of one method."""
        return replace(self, trainings={**self.trainings, name: params})

    def build(self, name: str, m: Manifest, seed: int | None = None) -> Pretraining:
        """A method, initialised for these images. seed: by default that of the first training run."""
        size = m.preprocess.size
        return start.method(name, self.method(name), size, m.mean, m.std, self.seed if seed is None else seed)

    def fitted(self, images: int) -> "Config":
        """A copy for so many train images: a larger batch is reduced to half of them, for two steps per epoch."""
        fitted = self
        for name in self.methods:
            params = self.method(name)
            parts = self.pretrain.processes * params.accumulate
            most = images // 2 // parts * parts
            if params.batch_size > images and most >= 2:
                fitted = fitted.having(name, replace(params, batch_size=most))
        return fitted

    def of_baseline(self, name: str) -> BaselineParams:
        baselines: dict[str, BaselineParams] = {
            "supervised": self.supervised,
            "pseudolabel": self.pseudolabel,
            "fixmatch": self.fixmatch,
        }
        return baselines[name]


def cut(name: str, given: Config, fitted: Config, images: int) -> list[str]:
    """The sentence to print when a batch size was reduced."""
    asked, taken = given.method(name).batch_size, fitted.method(name).batch_size
    if asked == taken:
        return []
    return [
        f"Parameter {name}.batch_size is {asked}, but the train split has only {images} images. "
        f"The batch size is reduced to {taken}."
    ]


def load(path: Path = PARAMS) -> Config:
    """Read and check everything. Raises ConfigError with one sentence."""
    given = read(path)  # its messages name the file
    try:
        return checked(given)
    except ConfigError as sentence:
        raise ConfigError(f"{sentence} Edit {path}.") from None


def checked(given: Mapping[Any, Any]) -> Config:
    """The configuration that these sections are. Raises ConfigError."""
    config = converted(given)
    cross_check(config)
    return config


def converted(given: Mapping[Any, Any]) -> Config:
    known = [field.name for field in fields(Sections)]
    for key in given:
        if key not in (*known, *METHODS):
            raise ConfigError(f"There is no parameter {str(key)[:100]}. Allowed: {', '.join([*known, *METHODS])}.")
    trainings = {name: convert(given[name], METHODS[name].PARAMS, name) for name in METHODS if name in given}
    rest: Sections = convert({key: value for key, value in given.items() if key in known}, Sections, "")
    return Config(**vars(rest), trainings=trainings)


def cross_check(config: Config) -> None:
    """Refuse contradictions between sections, and values outside the ranges that the types do not state."""
    p, q = config.prepare, config.probe
    positive = {
        "pretrain.watch": 1 if config.pretrain.watch is None else config.pretrain.watch,
        "probe.temperature": q.temperature,
        "finetune.all_labels": config.finetune.all_labels,
        "baseline.all_labels": config.baseline.all_labels,
        **{f"{name}.budget": config.of_baseline(name).budget for name in BASELINES},
    }
    check_name(config.dataset, "dataset")
    require(config.download in ((), (config.dataset,)), "download", list(config.download),
            f"[{config.dataset}], the set that dataset names, or [] for a folder of your own")  # fmt: skip
    for key, value in positive.items():
        require(value > 0, key, value, "a number above 0")
    require(p.val > 0 and p.test > 0 and p.val + p.test < 1, "prepare.val + prepare.test", p.val + p.test,
            "both above 0, together below 1")  # fmt: skip
    require(p.range == "auto" or p.range[0] < p.range[1], "prepare.range", [*p.range],
            "auto, or two numbers, the smaller one first")  # fmt: skip
    require(0 <= p.max_bad_fraction <= 1, "prepare.max_bad_fraction", p.max_bad_fraction, "0 to 1")
    require(bool(q.shots), "probe.shots", list(q.shots), "label counts of 1 or more")
    require(bool(q.C) and list(q.C) == sorted(set(q.C)) and q.C[0] > 0, "probe.C", list(q.C), "ascending, above 0")
    labels: dict[str, LabelSamples] = {"finetune": config.finetune, "baseline": config.baseline}
    for key, of in labels.items():  # otherwise there would be no pairs to compare
        require(set(of.shots) <= set(q.shots), f"{key}.shots", list(of.shots), f"some of probe.shots {list(q.shots)}")
        require(0 < of.label_samples <= q.label_samples, f"{key}.label_samples", of.label_samples,
                f"1 to probe.label_samples {q.label_samples}")  # fmt: skip
    use, read = config.promote.for_, {"embeddings": q.shots, "finetuning": config.finetune.shots}
    require(config.promote.labels in (*read[use], "all"), "promote.labels", config.promote.labels,
            f"{', '.join(map(str, read[use]))} or all, the label counts that are measured for {use}")  # fmt: skip
    require(config.labelled_trainings or use == "embeddings", "promote.for", use,
            "embeddings where labelled_trainings is false, because nothing is fine-tuned then")  # fmt: skip
    names = list(config.methods)
    require(bool(names) and len(set(names)) == len(names) and set(names) <= set(METHODS), "methods", names,
            f"one or more of {', '.join(METHODS)}, each once")  # fmt: skip
    for name in names:
        if name not in config.trainings:
            raise ConfigError(f"Section {name} is missing. The key methods names it, so its parameters are needed.")
    for name in config.trainings:
        check_sides(name, config.method(name), p.size)
        check_init(name, config.method(name).encoder.init)


def check_name(name: str, key: str) -> None:
    """Raises ConfigError when this is no valid name of a data set."""
    require(bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)), key, name,
            "letters, digits and . _ - with a letter or digit first; models and a folder get this name")  # fmt: skip


def check_sides(name: str, params: MethodParams, size: int) -> None:
    """Raises ConfigError when the encoder cannot take a view of the method."""
    for key, side in params.sides(size).items():
        try:
            params.encoder.check_side(key, side)
        except ValueError as error:
            raise ConfigError(f"Parameter {name}.encoder.{str(error).rstrip('.')}.") from None


def check_init(name: str, init: str | None) -> None:
    address = r"models:/[^/@]+(/\d+|@[^/@]+)"
    known = init is None or (bool(init.strip()) and (":/" not in init or bool(re.fullmatch(address, init))))
    require(known, f"{name}.encoder.init", repr(init), "a file or a folder here, models:/NAME/VERSION or "
            "models:/NAME@ALIAS; nothing is downloaded from elsewhere")  # fmt: skip


def require(holds: bool, key: str, value: Any, allowed: str) -> None:
    if not holds:
        raise refused(key, value, allowed)


def check_batch(name: str, params: MethodParams, images: int, processes: int) -> None:
    """Raises StageError when the batch size does not fit the data set or the number of processes."""
    b, parts, key = params.batch_size, processes * params.accumulate, f"{name}.batch_size"
    if not 2 <= b <= images:
        raise StageError(f"{refused(key, b, f'2 to {images}, the images of the train split')} Edit params.yaml.")
    if b % parts:
        allowed = f"a multiple of {parts}, which is processes times accumulate"
        raise StageError(f"{refused(key, b, allowed)} Edit params.yaml.")
