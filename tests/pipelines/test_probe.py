"""What the stage writes: scores, figures, features, a diagnosis; of every pretraining seed, with labels and without."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from data.shards import Prepared
from models import start
from pipelines import probe
from pipelines.evaluation import features, probe_protocol, scores
from pipelines.project import config
from tests.pipelines.small_project import Project

SEEDS = (0, 1)


def probed(project: Project) -> dict[str, dict[str, float]]:
    """The stage on a SimCLR of two seeds, none of which was trained."""
    folder = project.root / "artifacts" / "methods" / "simclr"
    folder.mkdir(parents=True)
    with contextlib.chdir(project.root):
        c, m = config.load(), Prepared(project.root / "data" / "prepared").manifest
        weights = {
            s: start.method("simclr", c.method("simclr"), 16, m.mean, m.std, 7 + s).encoder.state_dict() for s in SEEDS
        }
        spec: dict[str, Any] = {"encoder": vars(c.method("simclr").encoder), "image_size": 16}
        torch.save({"weights": weights[0], "spec": spec, "repeats": {1: weights[1]}}, folder / "checkpoint.pt")
        (folder / "history.jsonl").write_text(json.dumps({"step": 1, "loss": 4.0}) + "\n")
        probe.main("simclr")
    found: dict[str, dict[str, float]] = json.loads(project.artifact("simclr", "metrics.json").read_text())
    return found


def test_every_seed_is_read_and_its_features_and_predictions_are_kept(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.set({"probe.shots": [1, 5, 50]})
    metrics = probed(project)
    printed = capsys.readouterr().out
    assert "Not measured: 50 labels per class, because not every class has so many labels in train." in printed
    assert "0 health checks are too few to judge by" in printed
    rows = scores.read(project.artifact("simclr", "scores.csv"))
    samples = config.load(project.root / "params.yaml").probe.label_samples
    for who, seeds in (("simclr", SEEDS), ("random-simclr", SEEDS), ("pixels", SEEDS[:1])):
        cells = {(s.how, s.labels, s.seed, s.sample) for s in rows if s.who == who}
        few = {(how, n, s, d) for how in ("linear", "knn") for n in "15" for s in seeds for d in range(samples)}
        assert cells == few | {(how, "all", s, 0) for how in ("linear", "knn") for s in seeds}
        figures = scores.figures(s for s in rows if s.who == who)
        assert {k: pytest.approx(v, abs=1e-3) for k, v in figures.items()}.items() <= metrics[who].items()
        assert metrics[who]["C_1"] == 10.0
        assert "C_all" in metrics[who]
    assert "linear_all_sd" in metrics["simclr"]
    assert len({s.accuracy for s in rows if (s.who, s.how, s.labels) == ("simclr", "linear", "all")}) == 2
    assert json.loads(project.artifact("simclr", "diagnosis.json").read_text()).keys() == {"name", "because", "change"}

    y = probe_protocol.labels(Prepared(project.root / "data" / "prepared"))
    kept = np.load(project.artifact("simclr", "features.npz"))
    assert [len(kept[s]) for s in probe_protocol.SPLITS] == [len(y[s]) for s in probe_protocol.SPLITS]
    assert np.array_equal(kept["train_labels"], y["train"])
    assert np.array_equal(kept["test_labels"], y["test"])
    (first,) = [s for s in rows if (s.who, s.how, s.labels, s.seed) == ("simclr", "linear", "all", 0)]
    assert 100 * np.mean(kept["test_predictions"] == y["test"]) == pytest.approx(first.accuracy, abs=1e-3)
    assert np.array_equal(kept["test_predictions"], first.said["test"].predicted)
    assert [100 * scores.answers([s]).mean() for s in rows] == pytest.approx([s.accuracy for s in rows], abs=1e-3)


def test_without_labels_the_files_are_there_and_hold_what_needs_none(project: Project) -> None:
    index = project.root / "data" / "prepared" / "index.csv"
    head, *rows = index.read_text().splitlines()
    index.write_text("\n".join([head, *(",".join([*r.split(",")[:2], "", *r.split(",")[3:]]) for r in rows)]) + "\n")
    metrics = probed(project)
    assert all(
        k.removesuffix("_sd").removeprefix("val_") in ("retrieval", "between_images")
        for f in metrics.values()
        for k in f
    )
    assert scores.read(project.artifact("simclr", "scores.csv")) == []
    kept = np.load(project.artifact("simclr", "features.npz"))
    assert [len(kept[k]) for k in ("train_labels", "test_labels", "test_predictions")] == [0, 0, 0]
    assert len(kept["train"]) > 0


def test_a_gpu_is_held_for_the_features_and_not_for_the_probe(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = [False]
    taken: list[int] = []
    read = probe_protocol.readings

    @contextlib.contextmanager
    def device() -> Iterator[torch.device]:
        held[0] = True
        taken.append(1)
        yield torch.device("cpu")
        held[0] = False

    def readings(*given: Any) -> Iterator[probe_protocol.Reading]:
        assert not held[0]
        return read(*given)

    monkeypatch.setattr("pipelines.machine.gpus.device", device)
    monkeypatch.setattr(probe_protocol, "readings", readings)
    probed(project)
    assert len(taken) == 4  # two seeds, trained and random; pixels need none


def test_pixels_are_read_once_for_all_methods(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    first = probed(project)
    monkeypatch.setattr(features, "pixel_features", lambda batches: pytest.fail("they are known"))
    shutil.rmtree(project.root / "artifacts")
    assert probed(project)["pixels"] == first["pixels"]
    shutil.rmtree(project.root / "artifacts")
    project.set({"probe.label_samples": 3})
    with pytest.raises(pytest.fail.Exception, match="they are known"):
        probed(project)
