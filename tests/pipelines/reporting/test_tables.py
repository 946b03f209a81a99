"""The table and the chart's figures, from single scores."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from data.shards import Prepared
from pipelines.evaluation.champion import UNLABELLED
from pipelines.evaluation.scores import How, Score
from pipelines.project import config, stage
from pipelines.reporting import tables
from pipelines.reporting.accuracy_charts import headline, label_efficiency
from pipelines.reporting.charts import COLOURS
from pipelines.reporting.results import Results
from tests.pipelines.small_project import Project


@pytest.fixture(scope="module")
def unscored(prepared_project: Project) -> Results:
    """300 digits, nothing measured."""
    with contextlib.chdir(prepared_project.root):
        c, prepared = config.load(), Prepared(stage.PREPARED)
    return Results(c, prepared, {}, [], {}, {}, {"champion": "simclr"})


def runs(who: str, how: How, labels: str, *accuracies: float) -> list[Score]:
    return [Score(who, how, labels, 0, sample, a, a) for sample, a in enumerate(accuracies)]


@pytest.fixture
def scored(unscored: Results) -> Results:
    scores = [
        *runs("pixels", "linear", "1", 40.0, 42.0, 44.0),
        *runs("fixmatch-simclr", "finetune", "5", 70.0),
        *runs("simclr", "linear", "all", 98.0),
        *runs("simclr", "linear", "1", 79.0, 80.0, 81.0),
        *runs("simclr-pseudolabel", "finetune", "5", 91.0),
        *runs("simclr", "finetune", "5", 90.0, 92.0),
        *runs("random-simclr", "linear", "1", 30.0),
    ]
    return replace(unscored, scores=scores)


def test_methods_come_first_and_every_cell_is_mean_and_sd(scored: Results) -> None:
    assert [tuple(row.values()) for row in tables.accuracies(scored)] == [
        ("SimCLR", "linear probe", "80.0 ± 1.0", "", "98.0"),
        ("SimCLR", "fine-tuning", "", "91.0 ± 1.4", ""),
        ("SimCLR + pseudo-labels", "fine-tuning", "", "91.0", ""),
        ("FixMatch, backbone of SimCLR", "from scratch", "", "70.0", ""),
        ("Random encoder, backbone of SimCLR", "linear probe", "30.0", "", ""),
        ("Raw pixels", "linear probe", "42.0 ± 2.0", "", ""),
    ]
    assert list(tables.accuracies(scored)[0]) == ["encoder", "classifier", "1 label", "5 labels", "all labels"]
    assert len({len(line) for line in tables.text(tables.accuracies(scored)).splitlines()}) == 1
    assert tables.head(scored) == (
        "Test accuracy in % by labels per class, mean ± standard deviation over 1 seed and up to 3 label samples"
    )
    assert tables.marks(scored) == ["simclr", "simclr", "simclr", "fixmatch", "random", "pixels"]


def test_without_labels_the_table_has_what_decides(unscored: Results) -> None:
    r = replace(unscored, figures={"simclr": {UNLABELLED: 12.34}})
    assert tables.accuracies(r) == [{"encoder": "SimCLR", "second views found": "12.3"}]
    assert tables.marks(r) == ["simclr"]
    assert "accuracy" not in tables.head(r)


def test_a_training_costs_the_time_of_its_steps(unscored: Results) -> None:
    rows = [{"step": step, "images_per_second": speed} for step, speed in ((10, 16.0), (20, 32.0))]
    r = replace(unscored, histories=dict.fromkeys(("simclr", "mae", "dino"), rows), figures={})
    batch = r.config.method("simclr").batch_size
    seconds = 10 * batch / 16 + 10 * batch / 32
    assert tables.costs(r)[0]["minutes"] == f"{seconds / 60:.2f}"
    simclr, mae, _ = tables.costs(r)
    of_mae = r.config.method("mae").batch_size
    assert (simclr["images"], mae["images"]) == (
        f"{2 * 20 * batch:,}",
        f"{20 * of_mae:,}",
    )  # views
    assert simclr["images per second"] == f"{2 * 20 * batch / seconds:,.0f}"


def test_a_line_per_approach_with_its_mean_its_band_and_its_name(scored: Results) -> None:
    figures = label_efficiency(scored)
    assert figures.keys() == {"frozen", "simclr", "dino"}  # one backbone, on which FixMatch was trained
    (axes,) = figures["simclr"].axes
    assert {text.get_text() for text in axes.texts} == {"linear probe", "fine-tuned", "+ pseudo-labels", "FixMatch"}
    (axes,) = headline(scored).axes
    assert {text.get_text() for text in axes.texts} == {"SimCLR", "FixMatch"}
    (axes,) = figures["frozen"].axes
    drawn = {line.get_color(): np.asarray(line.get_xydata()).tolist() for line in axes.lines}
    assert drawn[COLOURS["simclr"][0]] == [[1.0, 80.0], [scored.per_class("all"), 98.0]]
    bands = {
        to_hex(tuple(np.asarray(band.get_facecolor())[0])): band.get_paths()[0].vertices for band in axes.collections
    }
    assert set(np.asarray(bands[COLOURS["pixels"][0]])[:, 1]) == {40.0, 44.0}
