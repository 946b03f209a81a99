"""What the verdict says of given figures."""

import pytest

from pipelines.evaluation.approach import Approach, best, cells
from pipelines.evaluation.scores import Score
from pipelines.evaluation.verdict import health, leaders, sentences, worth
from pipelines.evaluation.words import counts

LABELS = ("1", "10", "all")
HEALTHY = {m: {"name": "healthy", "because": "", "change": ""} for m in ("simclr", "mae")}


def scores(who: str, how: str, *levels: float, scatter: float = 1.0) -> list[Score]:
    """Five samples about each level (one with all labels), the same ups and downs for everyone."""
    ups = [-1.0, -0.5, 0.0, 0.5, 1.0]
    return [
        Score(who, how, labels, 0, sample, level + scatter * up, level + scatter * up)  # type: ignore[arg-type]
        for labels, level in zip(LABELS, levels, strict=True)
        for sample, up in enumerate([0.0] if labels == "all" else ups)
    ]


def test_the_best_is_the_best_on_val() -> None:
    cell = {
        Approach("simclr", "linear"): [Score("simclr", "linear", "1", 0, 0, accuracy=50, val=60)],
        Approach("mae", "linear"): [Score("mae", "linear", "1", 0, 0, accuracy=90, val=40)],
    }
    assert best(cell) == Approach("simclr", "linear")


@pytest.mark.parametrize(
    ("who", "how", "pretrained", "text"),
    [
        ("simclr", "linear", True, "simclr with a linear probe"),
        ("mae", "finetune", True, "mae fine-tuned"),
        ("dino-pseudolabel", "finetune", True, "dino fine-tuned with pseudo-labels"),
        ("random-mae", "knn", False, "a random encoder by nearest neighbours"),
        ("pixels", "linear", False, "raw pixels with a linear probe"),
        ("supervised-simclr", "finetune", False, "supervised training of simclr's backbone from scratch"),
        ("fixmatch-mae", "finetune", False, "FixMatch of mae's backbone from scratch"),
    ],
)
def test_an_approach_has_words(who: str, how: str, pretrained: bool, text: str) -> None:
    approach = Approach(who, how)
    assert (approach.pretrained, str(approach)) == (pretrained, text)


def test_labels_ascend_and_all_is_the_last() -> None:
    mixed = [Score("a", "linear", n, 0, 0, 1, 1) for n in ("all", "10", "2", "1", "50", "5")]
    assert list(cells(mixed)) == ["1", "2", "5", "10", "50", "all"]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (["1"], "with 1 label a class"),
        (["1", "5", "10"], "with 1, 5 and 10 labels a class"),
        (["50", "all"], "with 50 labels a class and with all"),
        (["all"], "with all labels"),
    ],
)
def test_label_counts_in_words(labels: list[str], text: str) -> None:
    assert counts(labels) == text


def test_worth_says_where_pretraining_wins_and_where_it_is_noise() -> None:
    figures = scores("simclr", "linear", 85, 95, 97) + scores("supervised-simclr", "finetune", 50, 80, 97.5)
    assert worth(figures, images=1000) == (
        "With 1 and 10 labels a class pretraining wins (most with 1 label a class: 85.0 % by simclr with a linear "
        "probe, 50.0 % by supervised training of simclr's backbone from scratch; +35.0 ± 3.8 points); "
        "with all labels one training each was made, whose noise is unknown (97.0 % by simclr with a linear probe, "
        "97.5 % by supervised training of simclr's backbone from scratch; -0.5 points)."
    )


def test_a_win_over_pixels_alone_does_not_count_where_more_was_tried() -> None:
    figures = scores("simclr", "linear", 85, 95, 97) + scores("pixels", "linear", 60, 60, 60)
    scratch = [s for s in scores("fixmatch-simclr", "finetune", 0, 95, 0) if s.labels == "10"]
    assert worth(figures + scratch, 1000).startswith("With 10 labels a class the difference is within noise (")
    assert worth(figures, 1000).startswith("With 1 and 10 labels a class pretraining wins (")


def test_worth_says_when_it_is_a_loss() -> None:
    figures = scores("mae", "finetune", 20, 30, 40) + scores("pixels", "linear", 40, 60, 80)
    assert worth(figures, 1000).startswith("With 1 and 10 labels a class pretraining loses (")


def test_one_training_each_is_neither_a_win_nor_a_loss() -> None:
    """However far apart: what another seed would give is not known."""
    figures = scores("simclr", "linear", 85, 95, 97) + scores("pixels", "linear", 60, 60, 60)
    assert worth(figures, 10**6).endswith(
        "; with all labels one training each was made, whose noise is unknown (97.0 % by simclr with a linear probe, "
        "60.0 % by raw pixels with a linear probe; +37.0 points)."
    )


def test_what_is_trained_from_scratch_for_less_says_so() -> None:
    figures = scores("simclr", "linear", 85, 95, 97) + scores("fixmatch-simclr", "finetune", 50, 94.9, 97)
    shares = {("fixmatch-simclr", "1"): 0.25, ("fixmatch-simclr", "10"): 1.0, ("supervised-mae", "1"): 1.0}
    scratch = "50.0 % by FixMatch of simclr's backbone from scratch"
    assert f"{scratch} on 25 % of pretraining's images;" in worth(figures, 1000, shares)
    assert f"{scratch};" in worth(figures, 1000)


def test_leaders_change_with_the_labels() -> None:
    figures = [
        *scores("simclr", "linear", 85, 90, 92),
        *scores("simclr", "finetune", 60, 95, 98),
        *scores("pixels", "linear", 50, 60, 97.9),
    ]
    assert leaders(figures, images=10_000) == (
        "With 1 label a class the best on val is simclr with a linear probe; with 10 labels a class and with all the "
        "best on val is simclr fine-tuned (with all labels within noise of another)."
    )


def test_health_names_the_ill_with_the_figure_and_the_cure() -> None:
    assert health({}) == "Nothing was seen of how the trainings went."
    assert health(HEALTHY) == "Training went well: simclr and mae look healthy."
    ill = HEALTHY | {"mae": {"name": "diverged", "because": "the loss is nan", "change": "lower mae.optim.lr"}}
    assert health(ill) == (
        "Not every training went well: simclr looks healthy; mae: diverged, the loss is nan; lower mae.optim.lr."
    )
    unseen = {"name": "not judged", "because": "4 looks are too few", "change": "look more often"}
    assert health(HEALTHY | {"mae": unseen}) == (
        "Training went well where it was judged: simclr looks healthy; mae: not judged, 4 looks are too few; look more "
        "often."
    )
    assert health({"mae": unseen}) == "No training was judged: mae: not judged, 4 looks are too few; look more often."
    assert health(ill | {"simclr": unseen}).startswith("Not every training went well: simclr: not judged, ")


def test_the_verdict_has_three_parts() -> None:
    figures = scores("simclr", "linear", 85, 95, 97) + scores("pixels", "linear", 60, 95, 97)
    well, worthy, todo = sentences(figures, HEALTHY, "simclr", "embeddings", 1000)
    assert well.startswith("Training went well")
    assert "pretraining wins" in worthy
    assert todo.startswith("Use simclr frozen")
