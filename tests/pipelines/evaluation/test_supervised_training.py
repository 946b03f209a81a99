"""Training with labels: what a step is given, and the stages as their reader finds their files."""

import contextlib
import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data.shards import Prepared
from models import start
from models.evaluation import probe
from models.methods import BASELINES
from models.methods.dino import DINOParams
from pipelines import baseline, finetune
from pipelines.engine.loop import Training
from pipelines.evaluation import scores
from pipelines.evaluation.scores import JUDGED, Score
from pipelines.evaluation.supervised import runs, trials
from pipelines.evaluation.supervised.training import Labelled, Trial, places
from pipelines.machine import flops, hardware
from pipelines.project import config
from pipelines.project.config import Config
from pipelines.project.supervision import batch_of
from tests.pipelines.conftest import prepare_small, write_digits
from tests.pipelines.small_project import Project

GREY = (0.5, 0.5, 0.5)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def c(prepared_project: Project) -> Config:
    return config.load(prepared_project.root / "params.yaml")


@pytest.fixture(scope="module")
def data(prepared_project: Project, c: Config) -> Labelled:
    return Labelled(Prepared(prepared_project.root / "data" / "prepared"), c.pretrain, CPU)


@pytest.mark.parametrize(("n", "count"), [(3, 8), (10, 4), (7, 7)])
def test_every_place_comes_equally_often(n: int, count: int) -> None:
    stream = np.concatenate([places(n, step * count, count, seed=0) for step in range(n)])
    assert Counter(stream.tolist()) == dict.fromkeys(range(n), count)
    assert len(set(stream[:n].tolist())) == n
    assert not np.array_equal(stream, np.concatenate([places(n, s * count, count, seed=1) for s in range(n)]))


@pytest.mark.parametrize("name", list(BASELINES))
def test_a_step_is_given_known_labels_then_unlabelled_images(name: str, c: Config, data: Labelled) -> None:
    params = c.of_baseline(name)
    made = data.baseline(name, start.method("simclr", c.method("simclr"), 16, GREY, GREY, seed=0).encoder, params, 0)
    labelled = runs.label_samples(data, c.baseline, c.seed)[0][2]
    n, more = batch_of(params)
    for step in (0, 5):
        inputs = data.inputs(made, params, labelled, 7, step)
        *_, y = inputs.draws
        assert (len(inputs.images), len(y)) == (n + more, n + more)
        known = data.prepared.images(labelled)
        for image, label in zip(inputs.images[:n].numpy(), y[:n].tolist(), strict=True):
            (row,) = np.flatnonzero((known == image).all(axis=(1, 2, 3)))
            assert label == data.prepared.labels(labelled[row : row + 1])[0]
        assert y[n:].tolist() == [-1] * more
        again = data.inputs(made, params, labelled, 7, step)
        assert all(torch.equal(a, b) for a, b in zip(inputs.draws, again.draws, strict=True))
        assert torch.equal(inputs.images, again.images)


def test_label_samples_are_the_probes_and_then_all_labels(c: Config, data: Labelled) -> None:
    found = runs.label_samples(data, replace(c.baseline, shots=(1, 5), label_samples=2), seed=3)
    assert [(labels, sample) for labels, sample, _ in found] == [("1", 0), ("1", 1), ("5", 0), ("5", 1), ("all", 0)]
    rows = data.prepared.rows("train")
    theirs = list(probe.label_samples(data.prepared.labels(rows), 5, 2, seed=3))
    assert np.array_equal(found[3][2], rows[theirs[1]])
    assert np.array_equal(found[4][2], rows)


def test_the_same_seed_gives_the_same_predictions_and_leaves_the_encoder(c: Config, data: Labelled) -> None:
    encoder = start.method("simclr", c.method("simclr"), 16, GREY, GREY, seed=0).encoder
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    trial = Trial("simclr", "supervised", c.finetune, encoder, 0, steps=6)
    rows, advanced = data.rows["train"], list[int]()
    first, again = (data.fit(trial, rows, 3, advanced.append) for _ in range(2))
    assert all(np.array_equal(first.said[s].predicted, again.said[s].predicted) for s in JUDGED)
    assert advanced == [c.finetune.batch_size] * 12
    assert first.images == 6 * c.finetune.batch_size
    assert all(torch.equal(v, encoder.state_dict()[k]) for k, v in before.items())
    made = data.baseline("supervised", encoder, c.finetune, 3)  # the long way round
    how = replace(c.pretrain, compile=False)
    training = Training(made, c.finetune, how, setting(), CPU)
    made.train()
    for step in range(6):
        training.step(data.inputs(made, c.finetune, rows, 3, step), step / 6)
    made.eval()
    images = torch.from_numpy(data.prepared.images(data.rows["test"]))
    right = sum(int(made(x[None]).argmax()) == y for x, y in zip(images, data.y["test"], strict=True))
    assert first.said["test"].accuracy == pytest.approx(100 * right / len(images))


def test_what_learns_from_labels_decays_no_token_and_pretraining_does(c: Config, data: Labelled) -> None:
    """MAE's official code: main_finetune.py spares the class token, main_pretrain.py does not."""
    pretraining = start.method("mae", c.method("mae"), 16, GREY, GREY, seed=0)
    baseline = data.baseline("supervised", pretraining.encoder, c.finetune, 0)
    how = replace(c.pretrain, compile=False)
    for method, params, expected in (
        (pretraining, c.method("mae"), c.method("mae").optim.weight_decay),
        (baseline, c.finetune, 0.0),
    ):
        optimizer = Training(method, params, how, setting(), CPU).optimizer
        token = method.encoder.get_parameter("cls_token")
        assert [g["weight_decay"] for g in optimizer.param_groups for p in g["params"] if p is token] == [expected]


def setting() -> hardware.Setting:
    return hardware.Setting(torch.float32, torch.channels_last, compiled=False)


def test_a_budget_is_a_share_of_the_images_of_pretraining(c: Config, data: Labelled) -> None:
    """SimCLR's pretraining: 10 epochs of 6 batches of 32, two views; MAE's: one."""
    assert len(data.train) // 32 == 6
    supervised = replace(c.supervised, budget=0.5, batch_size=64)
    fixmatch = replace(c.fixmatch, budget=0.5, batch_size=16, unlabelled=3)
    known = replace(c, supervised=supervised, fixmatch=fixmatch)
    for name, views in (("simclr", 2), ("mae", 1)):
        for what, images in (("supervised", 64), ("fixmatch", 16 * (1 + 2 * 3))):
            trial = trials.trial(what, name, 4, known, data)
            assert trial.steps == round(0.5 * 10 * 6 * 32 * views / images)
            assert (trial.who, trial.seed) == (f"{what}-{name}", 4)
    tiny = replace(known, supervised=replace(supervised, budget=1e-6), finetune=replace(c.finetune, steps=10))
    assert c.finetune.batch_size == 32
    assert trials.trial("supervised", "mae", 0, tiny, data).steps == 5  # of 64: the images of 10 steps of 32


def test_with_all_labels_a_training_is_longer_but_passes_through_few_images_only_so_often(c: Config) -> None:
    of = replace(c.finetune, all_labels=5.0, passes=20.0)
    assert of.steps_of_all(100, 10_000, 32) == 500
    assert of.steps_of_all(100, 320, 32) == 200  # 20 passes through 320 images
    assert of.steps_of_all(100, 32, 32) == 100  # never fewer than with few labels


def test_local_crops_count_by_area(c: Config) -> None:
    params = c.method("dino")
    assert isinstance(params, DINOParams)
    three = replace(params, local_crops=3, local_size=8)
    assert flops.views(start.method("dino", three, 16, GREY, GREY, seed=0), 10, 16) == 10 * (2 + 3 / 4)
    for name, own in ({**c.trainings, "dino": three}).items():  # what DVC is told is what is made
        assert own.seen(16) == flops.views(start.method(name, own, 16, GREY, GREY, seed=0), 10, 16) / 10


def test_a_baseline_starts_where_pretraining_starts(c: Config, data: Labelled) -> None:
    m = data.prepared.manifest
    fresh = start.method("mae", c.method("mae"), 16, m.mean, m.std, 2).encoder.state_dict()
    trial = trials.trial("supervised", "mae", 2, c, data)
    assert all(torch.equal(v, fresh[k]) for k, v in trial.encoder.state_dict().items())


def test_equal_backbones_are_trained_once(c: Config) -> None:
    assert list(trials.backbones(c)) == ["simclr", "mae"]
    started = replace(c.method("dino"), encoder=replace(c.method("dino").encoder, init="weights/elsewhere.pth"))
    assert list(trials.backbones(c.having("dino", started))) == ["simclr", "mae"]
    wider = replace(c.method("dino"), encoder=replace(c.method("simclr").encoder, width=4))  # type: ignore[call-arg]
    assert list(trials.backbones(c.having("dino", wider))) == ["simclr", "mae", "dino"]
    first = replace(c, baseline=replace(c.baseline, encoders="first"))
    assert list(trials.backbones(first)) == ["simclr"]


def checkpoint(project: Project, name: str, seeds: int) -> None:
    """Untrained, as the pretraining leaves it."""
    c = config.load(project.root / "params.yaml")
    encoders = {
        seed: start.method(name, c.method(name), 16, (0.5,) * 3, (0.25,) * 3, seed).encoder for seed in range(seeds)
    }
    weights = {seed: encoder.state_dict() for seed, encoder in encoders.items()}
    spec = {"encoder": asdict(c.method(name).encoder), "image_size": 16}
    project.artifact(name, "checkpoint.pt").parent.mkdir(parents=True)
    torch.save({"weights": weights.pop(0), "spec": spec, "repeats": weights}, project.artifact(name, "checkpoint.pt"))


def read(project: Project, name: str, table: str, summary: str) -> tuple[list[Score], dict[str, dict[str, float]]]:
    return scores.read(project.artifact(name, table)), json.loads(project.artifact(name, summary).read_text())


def test_the_stages_leave_scores_figures_and_cost(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.set({"seeds": 2, "finetune.all_labels": 3})
    checkpoint(project, "mae", seeds=2)
    with contextlib.chdir(project.root):
        baseline.main("fixmatch")
        finetune.main("mae")
    table, figures = read(project, "fixmatch", "scores.csv", "metrics.json")
    assert {s.who for s in table} == {"fixmatch-simclr", "fixmatch-mae"} == figures.keys()
    assert [(s.labels, s.sample) for s in table if (s.who, s.seed) == ("fixmatch-mae", 1)] == [("1", 0)]
    assert {s.how for s in table} == {"finetune"}
    table, figures = read(project, "mae", "finetune.csv", "finetune.json")
    assert {(s.who, s.seed) for s in table} == {(w, s) for w in ("mae", "mae-pseudolabel") for s in (0, 1)}
    cells = {who: [s.labels for s in table if (s.who, s.seed) == (who, 0)] for who in figures}
    assert cells == {"mae": ["1", "all"], "mae-pseudolabel": ["1"]}  # with all labels no image is left without
    for who, of in figures.items():
        own = scores.figures(s for s in table if s.who == who)
        flops = {f"{what}{labels}" for what in ("seconds", "images") for labels in ["", "_all"][: len(cells[who])]}
        assert of.keys() == own.keys() | flops
        assert of["finetune_1"] == pytest.approx(own["finetune_1"], abs=1e-4)
        assert of["seconds"] > 0
    assert figures["mae"]["images_all"] == 3 * 2 * 32
    assert figures["mae"]["images"] == 2 * 32
    printed = capsys.readouterr()
    assert "fixmatch-simclr: finetune_1 " in printed.out
    assert "finetune@mae " in printed.err and " images/s" in printed.err  # noqa: PT018


def test_without_labels_the_files_are_empty_and_a_sentence_says_so(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_digits(tmp_path / "raw", 60, labelled=False)
    prepare_small(tmp_path / "raw", tmp_path / "flat")
    checkpoint(project, "simclr", seeds=1)
    (project.root / "data" / "prepared").rename(project.root / "data" / "labelled")
    (tmp_path / "flat").rename(project.root / "data" / "prepared")
    with contextlib.chdir(project.root):
        baseline.main("pseudolabel")
        finetune.main("simclr")
    assert read(project, "pseudolabel", "scores.csv", "metrics.json") == ([], {})
    assert read(project, "simclr", "finetune.csv", "finetune.json") == ([], {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == 2 * [
        "Skipped: it needs labelled images of at least two classes, and labelled_trainings: true."
    ]


def test_two_ranks_learn_from_labels_what_one_process_learns(project: Project) -> None:
    project.set({"pretrain.precision": "fp64", "fixmatch.budget": 0.02})
    found = []
    for processes in (1, 2):
        project.set({"pretrain.processes": processes})
        done = project.run("-m", "pipelines.baseline", "fixmatch")
        assert done.returncode == 0, done.stderr
        found.append([project.artifact("fixmatch", f"scores.{end}").read_bytes() for end in ("csv", "npz")])
        assert done.stdout.count("images per training run") == 2  # one voice, of two backbones
    assert found[0] == found[1]
    project.set({"fixmatch.batch_size": 15})
    done = project.run("-m", "pipelines.baseline", "fixmatch")
    assert done.returncode == 1
    assert (
        "Parameter fixmatch.batch_size is 15. Allowed: a multiple of 2, which is processes times accumulate."
        in done.stderr
    )
