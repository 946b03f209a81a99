"""Which keys params.yaml has, which of them belong together, and what is said of a file that is none."""

import os
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml

from data.sources import BUNDLED, SOURCES
from pipelines.project import ConfigError, config
from tests.pipelines.project.params import MISSING, changed
from tests.pipelines.small_project import ROOT


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("epochs", "dataset, download, seed, seeds, methods, labelled_trainings, prepare"),
        ("prepare.sise", "size, filter"),
        ("dino.optim.rate", "name, lr"),
        ("mae.encoder.width", "arch, patch_size"),
        ("simclr.encoder.patch_size", "arch, width, stem"),
    ],
)
def test_an_unknown_key_is_an_error_that_lists_the_known(tmp_path: Path, key: str, known: str) -> None:
    path = changed(tmp_path, key, 1)
    with pytest.raises(
        ConfigError,
        match=rf"^There is no parameter {re.escape(key)}\. Allowed: {known}.*\. Edit {re.escape(str(path))}\.$",
    ):
        config.load(path)


@pytest.mark.parametrize("key", ["seed", "prepare.size", "simclr.epochs", "mae.encoder.patch_size", "dino.optim.lr"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    path = changed(tmp_path, key, MISSING)
    with pytest.raises(ConfigError, match=rf"^Parameter {re.escape(key)} is missing\. Edit {re.escape(str(path))}\.$"):
        config.load(path)


def test_contradictions_between_sections_are_found(tmp_path: Path) -> None:
    path = changed(tmp_path, "prepare", {"size": 16, "val": 0.5, "test": 0.5})
    with pytest.raises(ConfigError, match=r"prepare\.val \+ prepare\.test is 1\.0\. Allowed: both above 0, together"):
        config.load(path)
    vit = {"arch": "vit_nano", "patch_size": 4}
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["dino"] |= {"encoder": vit, "local_crops": 2, "local_size": 10}
    path.write_text(yaml.safe_dump(params))
    with pytest.raises(ConfigError, match=r"dino\.encoder\.patch_size is 4\. .* dino\.local_size 10: 1, 2, 5, 10"):
        config.load(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r" is missing\. Run the command in the project's folder, or restore the file: cp recipes/demo"),
        ("", r" is empty\. Run the command in the project's folder, or restore the file"),
        ("# nothing yet\n", " is empty"),
        ("[1, 2]", r" is \[1, 2\], not sections of keys and values"),
        ("dataset: [", " is not YAML"),
        ("seed: 2026-99-99", " is not YAML: month must be in 1..12"),
        (f"seed: {'9' * 5000}", " is not YAML: Exceeds the limit"),
        ("[" * 2000, " cannot be read: its values are nested too deeply"),
        ("seed: 0\nprepare:\n  size: 16\nseed: 1\n", " has the key 'seed' twice, in lines 1 and 4. Remove one of them"),
        ("prepare: {size: 16,\n  size: 32}\n", " has the key 'size' twice, in lines 1 and 2. Remove one of them"),
        ("{[1]: 2}", " is not YAML: while constructing a mapping"),
        (
            "# Gr\xfc\xdfe\ndataset: M\xfcnchen\n".encode("latin-1"),
            " is not UTF-8: line 1 has the byte 0xfc. Save it with",
        ),
        ("dataset: digits\n".encode("utf-16"), " is not UTF-8: line 1 has the byte 0xff"),
    ],
)
def test_what_is_no_params_file_is_one_sentence(tmp_path: Path, text: str | bytes | None, sentence: str) -> None:
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=rf"^The file {re.escape(str(path))}{sentence}") as caught:
        config.load(path)
    assert "\n" not in str(caught.value)


def test_every_public_set_may_be_downloaded_and_nothing_else() -> None:
    kind, _ = get_args(get_type_hints(config.Sections)["download"])
    assert get_args(kind) == (*BUNDLED, *SOURCES)


@pytest.mark.parametrize(("dataset", "download"), [("photos", ["digits"]), ("digits", ["digits", "cifar10"])])
def test_what_is_downloaded_is_what_is_trained_on(tmp_path: Path, dataset: str, download: list[str]) -> None:
    path = changed(tmp_path, "download", download)
    path.write_text(path.read_text().replace("dataset: digits", f"dataset: {dataset}"))
    sentence = re.escape(
        f"Parameter download is {download}. Allowed: [{dataset}], the set that dataset names, or [] for a folder"
    )
    with pytest.raises(ConfigError, match=sentence):
        config.load(path)


def test_a_folder_or_a_pipe_in_the_place_of_the_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")  # whoever opens it waits
    for name in ("folder", "pipe"):
        with pytest.raises(ConfigError, match=f"{name} is no regular file. Run the command in the project's folder"):
            config.load(tmp_path / name)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (ROOT / "params.yaml").read_bytes())
    assert config.load(path) == config.load(ROOT / "params.yaml")
