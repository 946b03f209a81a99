"""What is counted is what is written, what is compared is what ran, and the command's answers."""

import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.shards import Prepared
from pipelines import estimate
from pipelines.estimate import Asked
from pipelines.estimation import disk, graph, imagined, trainings
from pipelines.estimation.accelerators import GPU
from pipelines.estimation.comparison import HISTORY, compared
from pipelines.estimation.durations import sized, spoken
from pipelines.project import config, stage
from pipelines.project.stage import ESTIMATE, StageError
from tests.pipelines.small_project import METHODS, ROOT, Project

BASE = config.load(ROOT / "recipes" / "imagenet-vit-base.yaml")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the graph and the recipes, and no images."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def only(recipe: str, method: str) -> None:
    """Leave one pretraining in a recipe: the test is quick."""
    path = Path("recipes", f"{recipe}.yaml")
    text = path.read_text(encoding="utf-8").replace("labelled_trainings: true", "labelled_trainings: false")
    path.write_text(re.sub(r"^methods: \[.*?\]", f"methods: [{method}]", text, flags=re.MULTILINE), encoding="utf-8")


def test_the_graph_is_read_without_dvc() -> None:
    stages = graph.read(config.load(ROOT / "params.yaml"), ROOT / "dvc.yaml")
    assert stages["pretrain@mae"] == ("settings", "prepare")
    assert {"pretrain@mae", "probe@mae", "finetune@mae"} <= set(stages["register@mae"])
    assert not any(name.endswith("@dino") for name in stages["register@mae"])
    below = graph.below(stages, ["pretrain@mae"])
    assert below[0] == "pretrain@mae"
    assert below[-2:] == ["promote", "report"]
    assert not [name for name in below if name.endswith(("@simclr", "@dino", "@fixmatch"))]


def test_counted_disk_is_what_the_files_take(prepared_project: Project) -> None:
    folder = prepared_project.root / "data" / "prepared"
    prepared = Prepared(folder)
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    images = sum(size for name, size in files.items() if name.startswith("images-"))
    assert disk.shards(prepared.manifest.images, prepared.bytes_per_image) == images
    assert disk.folder(prepared) == pytest.approx(sum(files.values()), rel=0.05)


def test_images_that_are_not_here_are_as_many_as_published(bare: Path) -> None:
    imagenet, known = imagined.prepared(BASE, None)
    assert (imagenet.manifest.splits, known) == ({"train": 1_268_355, "val": 12_812, "test": 50_000}, "as published")
    stl10, _ = imagined.prepared(config.load(Path("recipes/stl10.yaml")), None)
    assert (stl10.labels(stl10.rows("train")) >= 0).sum() < 5_000 < 104_000 < len(stl10.rows("train"))
    given, known = imagined.prepared(BASE, 1000)
    assert (given.manifest.images, known, len(given.classes)) == (1000, "given", 1000)
    assert given.images(np.arange(3)).shape == (3, 3, 224, 224)
    with pytest.raises(StageError, match=r"^The folder data/raw/birds is missing, .* Give it: --images 10000\.$"):
        imagined.prepared(replace(BASE, dataset="birds"), None)


def test_the_whole_is_said_for_gpus_that_are_not_here(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only("imagenet-vit-base", "mae")
    estimate.main(Asked("imagenet-vit-base"))
    first, _, head, row, _, whole, *notes = capsys.readouterr().out.splitlines()
    assert first == "imagenet-vit-base: 1,331,167 images (as published) at 224 px, on 8 × A100 (80 GB)"
    assert head.split() == ["time", "memory", "processes", "×", "images"]
    assert re.fullmatch(r"mae +\d+\.\d h +\d+\.\d GB   8 × 512", row)
    assert re.match(r"In all about \d+\.\d h\. Disk: 401 GB for the prepared images", whole)
    assert "35 % of the peak of 312 TFLOP/s per GPU" in notes[1]
    assert "8 × H100" in notes[2]


def test_what_does_not_fit_a_gpu_is_said_with_the_keys_to_change(
    bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only("imagenet-vit-base", "mae")
    with pytest.raises(SystemExit, match="1"):
        estimate.main(Asked("imagenet-vit-base", 1, "l4"))
    assert "That is too much for 24 GB. In params.yaml, raise pretrain.processes (now 1, " in capsys.readouterr().out


def test_twice_as_fast_a_gpu_takes_half_the_time(bare: Path) -> None:
    c = replace(config.load(Path("recipes/cifar10-small.yaml")), methods=("mae",), labelled_trainings=False)
    prepared, _ = imagined.prepared(c, 1000)

    def seconds(teraflops: float, many: int, share: float) -> float:
        return estimate.counted(c, prepared, GPU("X", teraflops, 80), many, share).seconds

    once = seconds(0.1, 1, 0.2)
    assert seconds(0.2, 1, 0.2) == pytest.approx(once / 2)
    assert seconds(0.1, 4, 0.1) == pytest.approx(once / 2)


def test_on_this_machine_steps_are_measured(
    bare: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as the command does; it is given back
    only("digits", "mae")
    estimate.main(Asked("digits", 0, images=120))
    printed = capsys.readouterr().out
    assert re.match(r"digits: 120 images \(given\) at 16 px, on this machine's \d+ CPU cores?\n", printed)
    assert re.search(r"^mae +[\d.]+ (s|min) +\d\.\d GB   1 × 64$", printed, re.MULTILINE)
    assert "Measured: a few steps of each training run" in printed


def test_what_cannot_be_is_refused_in_a_sentence(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StageError, match=r"^There is no recipe nonsense\."):
        estimate.main(Asked("nonsense"))
    with pytest.raises(
        StageError, match=r"^The GPU K80 is not known\. Allowed: A100, .* give its peak: --teraflops 200\.$"
    ):
        estimate.main(Asked("digits", gpu="K80"))
    with pytest.raises(StageError, match=r"^Parameter simclr\.batch_size is 4096\. Allowed: a multiple of 3"):
        estimate.main(Asked("imagenet-vit-base", 3))
    for given in (["--gpus", "0", "--gpu", "A100"], ["--gpus", "-1"], ["--teraflops", "0"], ["--utilisation", "35"]):
        with pytest.raises(SystemExit, match="2"):
            estimate.arguments(given)
    assert capsys.readouterr().err.count("python -m pipelines.estimate: ") == 4


def test_a_run_is_compared_with_its_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert compared(300) == ""
    stage.SCRATCH.mkdir()
    ESTIMATE.write_text(json.dumps({"seconds": 240, "stages": {"report": 10}, "made": time.time() - 300}))
    assert compared(320, {"report": 12.0}) == "From the plan on: estimated 4.0 min, took 5.0 min (25 % longer)."
    assert json.loads(HISTORY.read_text())["stages"] == {"report": [10, 12.0]}
    ESTIMATE.write_text(json.dumps({"seconds": 400, "stages": {}, "made": time.time() - 300}))
    assert compared(300) == "From the plan on: estimated 6.7 min, took 5.0 min (25 % shorter)."
    ESTIMATE.write_text(json.dumps({"seconds": 301, "stages": {}, "made": time.time() - 300}))
    assert compared(300) == "From the plan on: estimated 5.0 min, took 5.0 min (as estimated)."
    ESTIMATE.write_text("{")
    assert compared(300) == ""


def test_durations_and_sizes_are_said_as_people_say_them() -> None:
    assert [spoken(s) for s in (40, 218, 700, 3 * 3600, 5 * 86400)] == [
        "40 s",
        "3.6 min",
        "12 min",
        "3.0 h",
        "5.0 days",
    ]
    assert [sized(b) for b in (6e7, 1.23e9, 4.0e11)] == ["60 MB", "1.2 GB", "400 GB"]


def test_without_labels_only_the_methods_are_trained() -> None:
    assert [work.stage for work in trainings.trainings(BASE, 0, labelled=False)] == [f"pretrain@{m}" for m in METHODS]
