"""params.yaml: what is accepted, and the one sentence for what is not."""

import copy
import dataclasses
import os
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml

from data.sources import BUNDLED, SOURCES
from pipelines.project import config
from pipelines.project.parse import ConfigError, convert
from tests.pipelines.small_project import ROOT

FILES = [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))]
MISSING = object()


def changed(folder: Path, key: str, value: Any) -> Path:
    """params.yaml with one key set, or removed."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    *sections, last = key.split(".")
    section = reduce(dict.__getitem__, sections, params)
    if value is MISSING:
        del section[last]
    else:
        section[last] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_is_frozen(path: Path) -> None:
    loaded = config.load(path)
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert dataclasses.asdict(loaded.method("dino"))["encoder"].items() >= given["dino"]["encoder"].items()
    for section in (loaded, loaded.prepare, loaded.mae, loaded.mae.optim, loaded.mae.encoder):
        with pytest.raises(dataclasses.FrozenInstanceError):
            section.seed = 1  # type: ignore[misc, union-attr]


@pytest.mark.parametrize(("written", "meant"), [("1e-4", 1e-4), ("2E-3", 2e-3), (1, 1.0)])
def test_a_number_is_a_number_however_yaml_reads_it(tmp_path: Path, written: Any, meant: float) -> None:
    path = changed(tmp_path, "simclr.optim.lr", 0.5)
    path.write_text(path.read_text(encoding="utf-8").replace("lr: 0.5", f"lr: {written}"))
    assert config.load(path).simclr.optim.lr == meant


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
        ("probe.draws", 0, "a whole number from 1"),
        ("finetune.shots", [1, 7], "some of probe.shots [1, 2, 5, 10, 50]"),
        ("finetune.draws", 6, "1 to probe.draws 5"),
        ("finetune.steps", 0, "a whole number from 1"),
        ("finetune.optim.layer_decay", 0.0, "above 0, to 1"),
        ("control.shots", [3], "some of probe.shots [1, 2, 5, 10, 50]"),
        ("control.draws", 6, "1 to probe.draws 5"),
        ("supervised.budget", 0.0, "above 0"),
        ("supervised.views.area", [0.9, 0.3], "0 < low <= high <= 1"),
        ("pseudolabel.accumulate", 2, "1"),
        ("fixmatch.threshold", 1.5, "0 to 1"),
        ("fixmatch.unlabelled", 0, "a whole number from 1"),
        ("export.precision", "int4", "fp32, fp16, int8"),
        ("seeds", 0, "a whole number from 1 to 1000"),
        ("labelled_trainings", "yes", "true or false"),
        ("promote.for", "clustering", "embeddings, finetuning"),
        ("promote.labels", 3, "1, 2, 5, 10, 50, all: what encoders are read with for embeddings"),
        ("promote.labels", "most", "a whole number, or all"),
    ],
)
def test_a_bad_value_is_named_with_file_key_and_what_is_allowed(
    tmp_path: Path, key: str, value: Any, allowed: str
) -> None:
    path = changed(tmp_path, key, value)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    said = str(caught.value)
    shown = rf"{re.escape(str(value))}|{re.escape(repr(value))}"
    assert re.match(rf"{re.escape(str(path))}: {re.escape(key)}(\[\d\])? is ({shown})", said), said
    assert f"allowed: {allowed}" in said or allowed in said.split("allowed: ")[1]
    assert "\n" not in said


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
def test_a_value_that_would_only_fail_later_is_refused_at_once(
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
    with pytest.raises(ConfigError, match=r"prepare\.range\[1\] is .*; allowed: a number$"):
        config.load(changed(tmp_path, "prepare.range", [0, given]))


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("epochs", "dataset, download, seed, seeds, labelled_trainings, prepare"),
        ("prepare.sise", "size, filter"),
        ("dino.optim.rate", "name, lr"),
        ("mae.encoder.width", "arch, patch_size"),
        ("simclr.encoder.patch_size", "arch, width, stem"),
    ],
)
def test_an_unknown_key_is_an_error_that_lists_the_known(tmp_path: Path, key: str, known: str) -> None:
    path = changed(tmp_path, key, 1)
    with pytest.raises(
        ConfigError, match=rf"^{re.escape(str(path))}: {re.escape(key)} is not a known key; allowed: {known}"
    ):
        config.load(path)


@pytest.mark.parametrize("key", ["seed", "prepare.size", "simclr.epochs", "mae.encoder.patch_size", "dino.optim.lr"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    path = changed(tmp_path, key, MISSING)
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}: {re.escape(key)} is missing$"):
        config.load(path)


def test_contradictions_between_sections_are_found(tmp_path: Path) -> None:
    path = changed(tmp_path, "prepare", {"size": 16, "val": 0.5, "test": 0.5})
    with pytest.raises(ConfigError, match=r"prepare\.val \+ prepare\.test is 1\.0; allowed: both above 0, together"):
        config.load(path)
    vit = {"arch": "vit_nano", "patch_size": 4}
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["dino"] |= {"encoder": vit, "local_crops": 2, "local_size": 10}
    path.write_text(yaml.safe_dump(params))
    with pytest.raises(ConfigError, match=r"dino\.encoder\.patch_size is 4; .* dino\.local_size 10: 1, 2, 5, 10"):
        config.load(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r" is missing\. Run the command in the project's folder, or make the file again: cp recipes/digits"),
        ("", r" is empty\. Run the command in the project's folder, or make the file again"),
        ("# nothing yet\n", " is empty"),
        ("[1, 2]", r" is \[1, 2\], not sections of keys and values"),
        ("dataset: [", " is not YAML"),
        ("seed: 2026-99-99", " is not YAML: month must be in 1..12"),
        (f"seed: {'9' * 5000}", " is not YAML: Exceeds the limit"),
        ("[" * 2000, " is not YAML: its values are nested too deeply"),
        ("seed: 0\nprepare:\n  size: 16\nseed: 1\n", ": 'seed' is there twice, in lines 1 and 4. Remove one of them"),
        ("prepare: {size: 16,\n  size: 32}\n", ": 'size' is there twice, in lines 1 and 2. Remove one of them"),
        ("{[1]: 2}", " is not YAML: while constructing a mapping"),
        (
            "# Gr\xfc\xdfe\ndataset: M\xfcnchen\n".encode("latin-1"),
            " is not UTF-8: line 1 has the byte 0xfc. Save it again",
        ),
        ("dataset: digits\n".encode("utf-16"), " is not UTF-8: line 1 has the byte 0xff"),
    ],
)
def test_what_is_no_params_file_is_one_sentence(tmp_path: Path, text: str | bytes | None, said: str) -> None:
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}{said}") as caught:
        config.load(path)
    assert "\n" not in str(caught.value)


def test_every_public_set_may_be_downloaded_and_nothing_else() -> None:
    kind, _ = get_args(get_type_hints(config.Config)["download"])
    assert get_args(kind) == (*BUNDLED, *SOURCES)


@pytest.mark.parametrize(("dataset", "download"), [("photos", ["digits"]), ("digits", ["digits", "cifar10"])])
def test_what_is_downloaded_is_what_is_trained_on(tmp_path: Path, dataset: str, download: list[str]) -> None:
    path = changed(tmp_path, "download", download)
    path.write_text(path.read_text().replace("dataset: digits", f"dataset: {dataset}"))
    said = re.escape(f"download is {download}; allowed: [{dataset}], the set that dataset names, or [] for a folder")
    with pytest.raises(ConfigError, match=said):
        config.load(path)


def test_a_folder_or_a_pipe_in_the_place_of_the_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")  # whoever opens it waits
    for name in ("folder", "pipe"):
        with pytest.raises(ConfigError, match=f"{name} is not a file. Run the command in the project's folder"):
            config.load(tmp_path / name)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (ROOT / "params.yaml").read_bytes())
    assert config.load(path) == config.load(ROOT / "params.yaml")


def numbers(kind: Any, key: str, given: Any, length: int = 0) -> Iterator[tuple[str, type, int]]:
    """Every key below this one whose value is a number, with its type, and its length where it is a list."""
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
        if kinds and dataclasses.is_dataclass(kinds[0]):  # the encoders
            kinds = [each for each in kinds if given["arch"] in get_args(get_type_hints(each)["arch"])]
        for each in kinds[:1]:
            yield from numbers(each, key, given)


GIVEN = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
NUMBERS = {key: (kind, length) for key, kind, length in numbers(config.Config, "", GIVEN)}


@pytest.mark.parametrize("key", NUMBERS)
def test_no_number_is_so_large_or_small_that_it_overflows(key: str) -> None:
    """torch, range() or the memory would not stand it."""
    kind, length = NUMBERS[key]
    given = copy.deepcopy(GIVEN)
    *sections, last = key.split(".")
    section = reduce(lambda found, name: found.setdefault(name, {}), sections, given)
    for value in (10**20, -(10**20), 10**400) if kind is int else (1e300, -1e300, 1e-300, 10**400):
        section[last] = [value] * length if length else value
        with pytest.raises(ConfigError, match=rf"^{re.escape(key)}(\[0\])? is .*; allowed: ") as caught:
            convert(given, config.Config, "")
        assert len(str(caught.value)) < 400


def test_the_walk_above_finds_the_numbers() -> None:
    assert {"seed", "mae.decoder_depth", "probe.C", "dino.encoder.width", "finetune.views.sigma"} <= NUMBERS.keys()
    assert len(NUMBERS) > 150
