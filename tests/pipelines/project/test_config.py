"""Values of params.yaml: what is accepted, and the one sentence for what is not."""

import copy
import dataclasses
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml

from models.encoders import ENCODERS
from models.encoders.encoder import EncoderParams
from models.methods import METHODS
from pipelines.project import ConfigError, config
from tests.pipelines.project.params import changed
from tests.pipelines.small_project import ROOT

FILES = [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_is_frozen(path: Path) -> None:
    loaded = config.load(path)
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert dataclasses.asdict(loaded.method("dino"))["encoder"].items() >= given["dino"]["encoder"].items()
    for section in (
        loaded,
        loaded.prepare,
        loaded.method("mae"),
        loaded.method("mae").optim,
        loaded.method("mae").encoder,
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            section.seed = 1  # type: ignore[misc, union-attr]


@pytest.mark.parametrize(("written", "meant"), [("1e-4", 1e-4), ("2E-3", 2e-3), (1, 1.0)])
def test_a_number_is_a_number_however_yaml_reads_it(tmp_path: Path, written: Any, meant: float) -> None:
    path = changed(tmp_path, "simclr.optim.lr", 0.5)
    path.write_text(path.read_text(encoding="utf-8").replace("lr: 0.5", f"lr: {written}"))
    assert config.load(path).method("simclr").optim.lr == meant


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("prepare.size", 16.5, "a whole number"),
        ("prepare.size", 0, "a whole number from 1 to 4096"),
        ("prepare.filter", "nearest", "bilinear, bicubic, lanczos, box"),
        ("prepare.range", "full", "auto, or a list"),
        ("prepare.range", [0], "a list of 2"),
        ("prepare.range", [255.0, 0.0], "auto, or two numbers, the smaller one first"),
        ("prepare.labels", 1, "true or false"),
        ("prepare.max_bad_fraction", 1.5, "0 to 1"),
        ("seed", True, "a whole number"),
        ("seed", None, "a whole number"),
        ("dataset", 5, "a text"),
        ("pretrain", 3, "a section of keys"),
        ("pretrain.precision", "fp16", "auto, fp32, bf16"),
        ("pretrain.log_every", 0, "a whole number from 1"),
        ("simclr.epochs", "ten", "a whole number"),
        ("simclr.epochs", 0, "a whole number from 1 to 1000000"),
        ("simclr.batch_size", 1, "2 or more"),
        ("simclr.area", 0.3, "a list of 2"),
        ("simclr.area", [0.3], "a list of 2"),
        ("simclr.area", [0.9, 0.3], "0 < low <= high <= 1"),
        ("simclr.flip", 2.0, "0 to 1"),
        ("simclr.temperature", 0.0, "above 0"),
        ("simclr.encoder.arch", "resnet11", "resnet10, resnet18, resnet50, vit_nano"),
        ("simclr.encoder.stem", "tiny", "imagenet, small, small/2"),
        ("simclr.optim.lr", "fast", "a number"),
        ("simclr.optim.name", "adam", "lars, sgd, adamw"),
        ("simclr.optim.warmup", 1.0, "0 to below 1"),
        ("mae.encoder.arch", "resnet10", "vit_nano, vit_micro"),
        ("mae.encoder.patch_size", 5, "a divisor of prepare.size 16: 1, 2, 4, 8, 16"),
        ("mae.mask_ratio", 1.0, "between 0 and 1"),
        ("mae.decoder_dim", 30, "a multiple of 4 and of decoder_heads"),
        ("dino.local_crops", -1, "a whole number from 0"),
        ("dino.blur", [0.0, 0.0], "a list of 3"),
        ("dino.teacher_temperature", 0.0, "above 0"),
        ("probe.shots", [], "label counts of 1 or more"),
        ("probe.shots", 5, "a list"),
        ("probe.label_samples", 0, "a whole number from 1"),
        ("finetune.shots", [1, 7], "some of probe.shots [1, 5, 10]"),
        ("finetune.label_samples", 6, "1 to probe.label_samples 5"),
        ("finetune.steps", 0, "a whole number from 1"),
        ("finetune.optim.layer_decay", 0.0, "above 0, to 1"),
        ("baseline.shots", [3], "some of probe.shots [1, 5, 10]"),
        ("baseline.label_samples", 6, "1 to probe.label_samples 5"),
        ("supervised.budget", 0.0, "above 0"),
        ("supervised.views.area", [0.9, 0.3], "0 < low <= high <= 1"),
        ("pseudolabel.accumulate", 2, "1"),
        ("fixmatch.threshold", 1.5, "0 to 1"),
        ("fixmatch.unlabelled", 0, "a whole number from 1"),
        ("export.precision", "int4", "fp32, fp16, int8"),
        ("seeds", 0, "a whole number from 1 to 1000"),
        ("labelled_trainings", "yes", "true or false"),
        ("promote.for", "clustering", "embeddings, finetuning"),
        ("promote.labels", 3, "1, 5, 10 or all, the label counts that are measured for embeddings"),
        ("promote.labels", "most", "a whole number, or all"),
    ],
)
def test_a_bad_value_is_named_with_file_key_and_what_is_allowed(
    tmp_path: Path, key: str, value: Any, allowed: str
) -> None:
    path = changed(tmp_path, key, value)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    sentence = str(caught.value)
    shown = rf"{re.escape(str(value))}|{re.escape(repr(value))}"
    assert re.match(rf"Parameter {re.escape(key)}(\[\d\])? is ({shown})", sentence), sentence
    assert allowed in sentence.split(". Allowed: ")[1]
    assert sentence.endswith(f". Edit {path}.")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("simclr.optim.lr", True, "a number"),
        ("simclr.optim.lr", float("nan"), "a number"),
        ("seed", -1, "a whole number from 0 to 2147483647"),
        ("seed", 12345678901234567890, "a whole number from 0 to 2147483647"),
        ("prepare.size", 5000, "4096"),
        ("dataset", "../elsewhere", "letters"),
        ("dataset", "my photos", "letters"),
        ("dino.global_area", [0.5, 2.0], "0 < low <= high <= 1"),
    ],
)
def test_a_value_that_would_only_fail_later_is_refused_immediately(
    tmp_path: Path, key: str, value: Any, allowed: str
) -> None:
    path = changed(tmp_path, key, value)
    with pytest.raises(ConfigError, match=rf"{re.escape(key)} is .*{re.escape(allowed)}"):
        config.load(path)


@pytest.mark.parametrize("given", ["auto", [684, 1208], [-0.5, 1e3]])
def test_the_range_is_a_word_or_two_numbers(tmp_path: Path, given: Any) -> None:
    assert config.load(changed(tmp_path, "prepare.range", given)).prepare.range in (given, tuple(given))


@pytest.mark.parametrize("given", ["low", float("inf"), None])
def test_an_end_of_the_range_is_a_finite_number(tmp_path: Path, given: Any) -> None:
    with pytest.raises(ConfigError, match=r"prepare\.range\[1\] is .*\. Allowed: a number\. "):
        config.load(changed(tmp_path, "prepare.range", [0, given]))


def numbers(kind: Any, key: str, given: Any, length: int = 0) -> Iterator[tuple[str, type, int]]:
    """Every key below this one whose value is a number, with its type, and its length where it is a list."""
    kind = ENCODERS[given["arch"]] if kind is EncoderParams else kind
    if dataclasses.is_dataclass(kind):
        for field, hint in get_type_hints(kind).items():
            below = given.get(field) if isinstance(given, dict) else None
            yield from numbers(hint, f"{key}.{field}".lstrip("."), below)
    elif kind in (int, float):
        yield key, kind, length
    elif get_origin(kind) is tuple:
        kinds = [each for each in get_args(kind) if each is not Ellipsis]
        yield from numbers(kinds[0], key, given, len(kinds))
    elif get_origin(kind) is not Literal:
        kinds = [each for each in get_args(kind) if each is not type(None)]
        for each in kinds[:1]:
            yield from numbers(each, key, given)


GIVEN = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
PLACES = {"": config.Sections} | {name: method.PARAMS for name, method in METHODS.items()}
NUMBERS = {
    key: (kind, length)
    for place, section in PLACES.items()
    for key, kind, length in numbers(section, place, GIVEN[place] if place else GIVEN)
}


@pytest.mark.parametrize("key", NUMBERS)
def test_no_number_is_so_large_or_small_that_it_overflows(key: str) -> None:
    """torch, range() or the memory would not stand it."""
    kind, length = NUMBERS[key]
    given = copy.deepcopy(GIVEN)
    *sections, last = key.split(".")
    section = reduce(lambda found, name: found.setdefault(name, {}), sections, given)
    for value in (10**20, -(10**20), 10**400) if kind is int else (1e300, -1e300, 1e-300, 10**400):
        section[last] = [value] * length if length else value
        with pytest.raises(ConfigError, match=rf"^Parameter {re.escape(key)}(\[0\])? is .*\. Allowed: ") as caught:
            config.converted(given)
        assert len(str(caught.value)) < 400


def test_the_walk_above_finds_the_numbers() -> None:
    assert {"seed", "mae.decoder_depth", "probe.C", "dino.encoder.width", "finetune.views.sigma"} <= NUMBERS.keys()
    assert len(NUMBERS) > 150
