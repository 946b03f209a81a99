"""What the flow prints at its end: it fits a terminal, and a stranger can read it."""

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from pipelines.evaluation.champion import UNLABELLED
from pipelines.evaluation.scores import Score
from pipelines.reporting import tables
from pipelines.reporting.ending import COLUMNS, LINES, ending, with_champion
from pipelines.reporting.results import Results
from tests.pipelines.evaluation.test_contest import scores
from tests.pipelines.reporting.names import keys_in
from tests.pipelines.reporting.test_tables import unscored  # noqa: F401 - a fixture

METHODS = ("simclr", "mae", "dino")
WELL = {m: {"name": "healthy", "because": "Well.", "change": "No change needed."} for m in METHODS}
LONG = "Check more often: lower pretrain.watch to 5 epochs or less, or leave it out. Then train again: dvc repro -fs x"
ILL = {m: {"name": "not judged", "because": "Few checks.", "change": LONG} for m in METHODS}
REASON = "It did best on the validation images. " + "Validation accuracy: SimCLR 90.0 %, MAE 80.0 %. " * 9


def shots(who: str, how: str, *levels: float, only: str = "") -> list[Score]:
    return [s for s in scores(who, how, *levels) if s.labels in (only or "1 10 all").split()]


@pytest.fixture
def labelled(unscored: Results) -> Results:  # noqa: F811
    """From scratch at 1 and 10 labels per class, supervised training with all labels too."""
    measured = [
        *(s for m in METHODS for how in ("linear", "knn", "finetune") for s in shots(m, how, 85, 95, 97)),
        *(s for m in METHODS for s in shots(f"{m}-pseudolabel", "finetune", 95, 95, 95, only="10")),
        *shots("supervised-simclr", "finetune", 50, 80, 98),
        *shots("fixmatch-mae", "finetune", 60, 95, 0, only="1 10"),
        *shots("pseudolabel-mae", "finetune", 55, 85, 0, only="1 10"),
        *shots("random-dino", "linear", 30, 50, 80),
        *shots("pixels", "linear", 60, 70, 90),
    ]
    promoted = {"champion": "simclr", "reason": "It did best on the validation images."}
    return replace(unscored, scores=measured, diagnoses=WELL, promoted=promoted)


def test_it_gives_the_answer_the_health_a_short_table_and_who_is_served(labelled: Results) -> None:
    lines = ending(labelled).splitlines()
    assert " ".join(lines[:2]) == (
        "Pretraining helped at 1 label per class; no clear difference at 10 labels per class or with all labels."
    )
    assert lines[2:5] == [
        "Health checks: SimCLR, MAE and DINO are healthy.",
        "",
        "Test accuracy in %, mean ± standard deviation over 3 seeds and up to 5 label samples:",
    ]
    header, *rows = (re.split(r"  +", line) for line in lines[5:14])
    assert header == ["", "1 per class", "10 per class", "all labels"]
    assert rows[0] == ["SimCLR + linear probe", "85.0 ± 0.7", "95.0 ± 0.7", "97.0 ± 0.0"]
    assert ["FixMatch", "60.0 ± 0.7", "95.0 ± 0.7", "not measured"] in rows
    assert len(rows) == 8
    assert "The champion is SimCLR. It did best on the validation images." in lines
    assert lines[-1] == "Pictures, curves and the full table: artifacts/report.html"
    firsts = [float(row["1 per class"].split()[0]) for row in tables.short(labelled)]
    assert firsts == sorted(firsts, reverse=True)


@pytest.mark.parametrize("diagnoses", [{}, WELL, ILL, {f"a{n}": ILL["mae"] for n in range(9)}])
@pytest.mark.parametrize("reason", ["It did best.", REASON])
@pytest.mark.parametrize("with_labels", [True, False])
def test_it_fits_a_terminal_whatever_happened(
    labelled: Results, diagnoses: Mapping[str, dict[str, str]], reason: str, with_labels: bool
) -> None:
    r = replace(labelled, diagnoses=dict(diagnoses), promoted={"champion": "simclr", "reason": reason})
    if not with_labels:
        r = replace(r, scores=[], figures={who: {UNLABELLED: 50.0} for who in encoders(20)})
    lines = ending(r).splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    assert keys_in("\n".join([*lines, *r.verdict()])) == set()


def test_the_champion_has_a_row_however_many_are_better() -> None:
    rows = ["", *(f"Method {n} + kNN  {90 - n}.0" for n in range(8)), "SimCLR + kNN  10.0", "Raw pixels + kNN  5.0"]
    assert with_champion(rows, 6, "SimCLR") == [*rows[:4], rows[9], "More rows are in the report."]
    assert with_champion(rows, 6, "Method 1") == [*rows[:5], "More rows are in the report."]
    assert with_champion(rows, 11, "SimCLR") == rows


def encoders(many: int) -> list[str]:
    return ["simclr", "random-simclr", "pixels", *(f"method{n}" for n in range(many))]


def test_without_labels_it_says_what_was_learnt(labelled: Results) -> None:
    figures = {"simclr": 80.0, "random-simclr": 13.0, "pixels": 41.0}
    r = replace(labelled, scores=[], figures={who: {UNLABELLED: found} for who, found in figures.items()})
    assert ending(r).splitlines()[:7] == [
        "SimCLR learnt to recognise images: it beats a random encoder and raw pixels.",
        "Health checks: SimCLR, MAE and DINO are healthy.",
        "",
        "Test images in % that find their own second view among those of all others:",
        "encoder                             second views found",
        "SimCLR                                            80.0",
        "Random encoder, backbone of SimCLR                13.0",
    ]


def test_an_ill_training_run_says_what_to_do(labelled: Results) -> None:
    change = "Lower mae.optim.lr (now 1.0)."
    r = replace(labelled, diagnoses=WELL | {"mae": {"name": "diverged", "because": "Large.", "change": change}})
    assert ending(r).splitlines()[2:4] == [
        "Health checks: SimCLR and DINO are healthy.",
        "Health check of MAE: diverged. Lower mae.optim.lr (now 1.0).",
    ]
