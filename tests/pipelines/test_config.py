"""params.yaml: what is accepted, and the one sentence for what is not."""

import dataclasses
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import config
from pipelines.convert import ConfigError
from tests.pipelines.project import ROOT

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
    given = yaml.safe_load(path.read_text())
    assert dataclasses.asdict(loaded.method("dino"))["encoder"].items() >= given["dino"]["encoder"].items()
    for section in (loaded, loaded.prepare, loaded.mae, loaded.mae.optim, loaded.mae.encoder):
        with pytest.raises(dataclasses.FrozenInstanceError):
            section.seed = 1  # type: ignore[misc, union-attr]


@pytest.mark.parametrize(("written", "meant"), [("1e-4", 1e-4), ("2E-3", 2e-3), (1, 1.0)])
def test_a_number_is_a_number_however_yaml_reads_it(tmp_path: Path, written: Any, meant: float) -> None:
    path = changed(tmp_path, "simclr.optim.lr", 0.5)
    path.write_text(path.read_text().replace("lr: 0.5", f"lr: {written}"))
    assert config.load(path).simclr.optim.lr == meant


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("prepare.size", 16.5, "a whole number"),
        ("prepare.size", 0, "above 0"),
        ("prepare.filter", "nearest", "bilinear, bicubic, lanczos, box"),
        ("prepare.labels", 1, "true or false"),
        ("prepare.max_bad_fraction", 1.5, "0 to 1"),
        ("seed", True, "a whole number"),
        ("seed", None, "a whole number"),
        ("dataset", 5, "a text"),
        ("pretrain", 3, "a section of keys"),
        ("pretrain.precision", "fp16", "auto, fp32, bf16"),
        ("pretrain.log_every", 0, "above 0"),
        ("simclr.epochs", "ten", "a whole number"),
        ("simclr.epochs", 0, "above 0"),
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
        ("dino.local_crops", -1, "0 or more"),
        ("dino.blur", [0.0, 0.0], "a list of 3"),
        ("dino.teacher_temperature", 0.0, "above 0"),
        ("probe.shots", [], "label counts of 1 or more"),
        ("probe.shots", 5, "a list"),
        ("probe.draws", 0, "above 0"),
        ("finetune.shots", [1, 7], "some of probe.shots [1, 2, 5, 10, 50]"),
        ("finetune.draws", 6, "1 to probe.draws 5"),
        ("finetune.steps", 0, "above 0"),
        ("finetune.optim.layer_decay", 0.0, "above 0, to 1"),
        ("control.shots", [3], "some of probe.shots [1, 2, 5, 10, 50]"),
        ("control.draws", 0, "1 to probe.draws 5"),
        ("supervised.budget", 0.0, "above 0"),
        ("supervised.views.area", [0.9, 0.3], "0 < low <= high <= 1"),
        ("pseudolabel.accumulate", 2, "1"),
        ("fixmatch.threshold", 1.5, "0 to 1"),
        ("fixmatch.unlabelled", 0, "1 or more"),
        ("export.precision", "int4", "fp32, fp16, int8"),
        ("seeds", 0, "above 0"),
        (
            "promote.metric",
            "finetune_2",
            "finetune_1, finetune_5, finetune_10, finetune_all, best_1, best_5, best_10, best_all",
        ),
        ("promote.metric", "linear_5", "a probe of frozen features alone says too little of MAE"),
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
        ("seed", -1, "0 or more"),
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


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("epochs", "dataset, seed, seeds, prepare"),
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
    [("", "the file is None"), ("[1, 2]", "the file is"), ("dataset: [", "is not YAML"), (None, "is not here")],
)
def test_what_is_no_params_file_is_one_sentence(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=f"params.yaml:? {said}") as caught:
        config.load(path)
    assert "\n" not in str(caught.value)
