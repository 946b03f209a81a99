"""Recipes: what each says of itself, the published numbers in the units in which they were published, and one word."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from models import methods, start
from models.methods.dino import DINOParams
from models.optim import OptimParams
from pipelines.estimation import imagined
from pipelines.project import config
from tests.pipelines.small_project import ROOT, Project, make

RECIPES = {path.stem: path for path in sorted((ROOT / "recipes").glob("*.yaml"), key=lambda path: path.stem)}


def test_params_are_the_recipe_of_the_demo() -> None:
    assert (ROOT / "params.yaml").read_bytes() == RECIPES["demo"].read_bytes()


@pytest.mark.parametrize("word", RECIPES)
def test_a_recipe_opens_with_source_machine_command_expected_number_and_time(word: str) -> None:
    text = RECIPES[word].read_text()
    opening = "".join(
        line for line in text.splitlines(keepends=True)[: text[: text.index("\ndataset:")].count("\n") + 1]
    )
    assert all(line.startswith("#") for line in opening.splitlines())
    keys = re.findall(r"^# (Source|Machine|Command|Expected|Time):", opening, re.MULTILINE)
    assert keys == ["Source", "Machine", "Command", "Expected", "Time"]
    assert imagined.machine(opening)
    assert f"--recipe {word}" in opening or "pipelines.flow FOLDER" in opening
    assert yaml.safe_load(text)["dataset"] == {"demo": "digits"}.get(word, word.split("-", maxsplit=1)[0])


@pytest.mark.parametrize("word", RECIPES)
def test_every_method_of_a_recipe_can_be_built(word: str) -> None:
    c = config.load(RECIPES[word])
    for name in methods.METHODS:
        with torch.device("meta"):
            method = start.method(name, c.method(name), c.prepare.size, (0.5,) * 3, (0.25,) * 3, 0)
        assert method.encoder.dim > 0


@pytest.mark.parametrize(
    ("word", "method", "epochs", "batch", "peak", "warmup", "decay", "optimizer"),
    [
        ("cifar10", "simclr", 1000, 512, 2.0, 10, 1e-4, "lars"),  # google-research/simclr, README
        ("cifar10", "mae", 1000, 256, 2e-4, 10, 0.05, "adamw"),  # solo-learn, cifar/mae.yaml
        ("cifar10", "dino", 1000, 256, 0.3, 10, 1e-6, "lars"),  # solo-learn, cifar/dino.yaml
        ("stl10", "simclr", 2000, 512, 2e-3, 2.5, 1e-6, "adamw"),  # htdt/self-supervised
        ("imagenette", "simclr", 800, 256, 0.06, 0, 5e-4, "sgd"),  # lightly, imagenette_benchmark.py
        ("imagenette", "mae", 800, 256, 1.5e-4, 40, 0.05, "adamw"),
        ("imagenette", "dino", 800, 256, 0.06, 0, 5e-4, "sgd"),
        ("imagenet-resnet50", "simclr", 1000, 4096, 4.8, 10, 1e-6, "lars"),  # the paper, section 2.2
        ("imagenet-resnet50", "dino", 100, 512, 0.06, 10, 1e-4, "sgd"),  # facebookresearch/dino, README
        ("imagenet-vit-small", "simclr", 300, 4096, 2.4e-3, 40, 0.1, "adamw"),  # moco-v3, CONFIG.md
        ("imagenet-vit-small", "dino", 300, 1024, 2e-3, 10, 0.04, "adamw"),  # dino, README, "Boosting"
        ("imagenet-vit-base", "mae", 1600, 4096, 2.4e-3, 40, 0.05, "adamw"),  # mae, table 8
        ("imagenet-vit-base", "dino", 400, 1024, 3e-3, 10, 0.04, "adamw"),  # the weights' args
        ("imagenet-vit-large", "mae", 800, 4096, 2.4e-3, 40, 0.05, "adamw"),  # mae, PRETRAIN.md
    ],
)
def test_schedules_are_the_published_ones(
    word: str, method: str, epochs: int, batch: int, peak: float, warmup: float, decay: float, optimizer: str
) -> None:
    params = config.load(RECIPES[word]).method(method)
    optim: OptimParams = params.optim
    assert (params.epochs, params.batch_size, optim.name) == (epochs, batch, optimizer)
    assert optim.peak_lr(batch) == pytest.approx(peak)
    assert optim.warmup * epochs == pytest.approx(warmup, rel=1e-3)
    assert optim.weight_decay == decay
    assert optim.clip is None  # of the whole gradient: no published recipe


@pytest.mark.parametrize(
    ("word", "frozen", "warm", "temperatures", "momentum", "crops", "areas", "clip_each", "lr_end", "drop_path"),
    [
        ("cifar10", 1, 0, (0.07, 0.07), 0.9995, 0, ((0.08, 1), None), None, 0.0, 0.0),
        ("imagenet-resnet50", 1, 0, (0.04, 0.04), 0.996, 8, ((0.14, 1), (0.05, 0.14)), 3.0, 1e-6, 0.0),
        ("imagenet-vit-small", 1, 30, (0.04, 0.07), 0.996, 8, ((0.4, 1), (0.05, 0.4)), 3.0, 1e-6, 0.1),
        ("imagenet-vit-base", 3, 50, (0.04, 0.07), 0.996, 10, ((0.25, 1), (0.05, 0.25)), 0.3, 2e-6, 0.1),
    ],
)
def test_dino_is_published_as_it_stands(
    word: str,
    frozen: int,
    warm: int,
    temperatures: tuple[float, float],
    momentum: float,
    crops: int,
    areas: tuple[tuple[float, float], tuple[float, float] | None],
    clip_each: float | None,
    lr_end: float,
    drop_path: float,
) -> None:
    p = config.load(RECIPES[word]).method("dino")
    assert isinstance(p, DINOParams)
    assert p.freeze_last_layer * p.epochs == pytest.approx(frozen, rel=1e-3)
    assert (p.warmup_teacher if temperatures[0] != temperatures[1] else 0) * p.epochs == pytest.approx(warm)
    assert (p.warmup_teacher_temperature, p.teacher_temperature) == temperatures
    assert (p.momentum, p.local_crops, p.global_area) == (momentum, crops, areas[0])
    assert not crops or (p.local_area, p.local_size) == (areas[1], 96)
    assert (p.optim.clip_each, p.optim.lr_end, p.drop_path) == (clip_each, lr_end, drop_path)


@pytest.mark.parametrize(
    ("word", "epochs", "peak", "layer_decay"),
    [("imagenet-vit-base", 100, 2e-3, 0.65), ("imagenet-vit-large", 50, 4e-3, 0.75)],
)
def test_fine_tuning_is_maes(word: str, epochs: int, peak: float, layer_decay: float) -> None:
    """facebookresearch/mae, FINETUNE.md and main_finetune.py; 99 % of ImageNet's 1,281,167 train images are left."""
    p = config.load(RECIPES[word]).finetune
    assert p.steps * p.batch_size / (0.99 * 1_281_167) == pytest.approx(epochs, rel=0.01)
    assert p.optim.peak_lr(p.batch_size) == pytest.approx(peak)
    assert p.optim.warmup * epochs == pytest.approx(5)
    assert (p.optim.layer_decay, p.optim.lr_end, p.optim.weight_decay) == (layer_decay, 1e-6, 0.05)
    assert (p.optim.name, p.optim.betas, p.batch_size, p.label_smoothing) == ("adamw", (0.9, 0.999), 1024, 0.1)


@pytest.mark.parametrize(
    ("word", "mu", "threshold", "weight"),
    [(word, 7, 0.95, 1.0) for word in ("cifar10", "stl10", "imagenette")] + [("imagenet-resnet50", 5, 0.7, 10.0)],
)
def test_fixmatch_is_the_official_one(word: str, mu: int, threshold: float, weight: float) -> None:
    """google-research/fixmatch: the flags of fixmatch.py, and imagenet/fixmatch.py."""
    p = config.load(RECIPES[word]).fixmatch
    assert (p.unlabelled, p.threshold, p.weight, p.momentum) == (mu, threshold, weight, 0.999)
    if mu == 7:
        assert (p.batch_size, p.optim.name, p.optim.lr, p.optim.weight_decay) == (64, "sgd", 0.03, 5e-4)
        assert (p.optim.lr_shape, p.optim.warmup, p.optim.lr_scaling) == ("fixmatch", 0.0, "none")


@pytest.mark.parametrize(
    ("word", "epochs"), [("imagenet-vit-small", 300), ("imagenet-vit-base", 300), ("imagenet-vit-large", 200)]
)
def test_from_scratch_a_vit_is_trained_as_by_maes_table_11(word: str, epochs: int) -> None:
    """The epochs are a share of the images of SimCLR's 300 epochs of two views."""
    c = config.load(RECIPES[word])
    p = c.supervised
    assert p.budget * 2 * c.method("simclr").epochs == pytest.approx(epochs, rel=0.01)
    assert p.optim.warmup * epochs == pytest.approx(20, rel=1e-3)
    assert p.optim.peak_lr(p.batch_size) == pytest.approx(1.6e-3)
    assert (p.optim.name, p.optim.weight_decay, p.optim.betas) == ("adamw", 0.3, (0.9, 0.95))
    assert (p.batch_size, p.label_smoothing) == (4096, 0.1)
    assert {c.pseudolabel.optim, c.fixmatch.optim} == {p.optim}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make(tmp_path_factory.mktemp("recipes"))


def test_one_word_chooses_a_recipe_and_the_params_before_are_kept(here: Project) -> None:
    before = (here.root / "params.yaml").read_text()
    done = here.flow("--recipe", "imagenet-vit-small")
    assert done.returncode == 1
    assert done.stdout == (
        "The file params.yaml is now the recipe imagenet-vit-small. The previous one is saved as "
        ".scratch/params.before.yaml.\n"
    )
    assert done.stderr.startswith(
        "The folder data/raw/imagenet is missing. Name a folder: python -m pipelines.flow FOLDER. "
    )
    assert (here.root / "params.yaml").read_bytes() == RECIPES["imagenet-vit-small"].read_bytes()
    assert Path(here.root, ".scratch/params.before.yaml").read_text() == before


def test_an_unknown_word_names_the_known_ones(here: Project) -> None:
    before = (here.root / "params.yaml").read_bytes()
    done = here.flow("--recipe", "imagenet")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"There is no recipe imagenet. Allowed: {', '.join(RECIPES)}.\n"
    assert (here.root / "params.yaml").read_bytes() == before
