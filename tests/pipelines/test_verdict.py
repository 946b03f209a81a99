"""What the verdict says of given figures."""

import math

import pytest
from scipy import stats

from pipelines.scores import Score
from pipelines.verdict import Approach, advice, best, cells, counts, difference, health, leaders, sentences, worth

LABELS = ("1", "10", "all")
HEALTHY = {m: {"name": "healthy", "because": "", "change": ""} for m in ("simclr", "mae")}


def scores(who: str, how: str, *levels: float, scatter: float = 1.0) -> list[Score]:
    """Five draws about each level (one with all labels), the same ups and downs for everyone."""
    ups = [-1.0, -0.5, 0.0, 0.5, 1.0]
    return [
        Score(who, how, labels, 0, draw, level + scatter * up, level + scatter * up)  # type: ignore[arg-type]
        for labels, level in zip(LABELS, levels, strict=True)
        for draw, up in enumerate([0.0] if labels == "all" else ups)
    ]


def test_a_difference_is_that_of_the_pairs() -> None:
    ours = [Score("a", "linear", "1", seed, draw, 80.0 + 3 * draw + seed, 0) for seed in range(2) for draw in range(3)]
    theirs = [Score("b", "linear", "1", seed, draw, 70.0 + 3 * draw, 0) for seed in range(2) for draw in range(3)]
    d = difference(ours, theirs, images=10**9)
    expected = stats.ttest_rel([s.accuracy for s in ours], [s.accuracy for s in theirs]).confidence_interval(0.95)
    assert d.points == pytest.approx(10.5)
    assert d.margin == pytest.approx((expected.high - expected.low) / 2, rel=1e-3)


def test_a_control_of_one_seed_is_paired_by_the_draw() -> None:
    ours = [Score("a", "linear", "1", seed, draw, 80.0 + draw, 0) for seed in (0, 7) for draw in range(3)]
    pixels = [Score("pixels", "linear", "1", 0, draw, 70.0 + draw, 0) for draw in range(3)]
    d = difference(ours, pixels, images=10**9)
    assert d.points == pytest.approx(10)
    assert d.margin == pytest.approx(0, abs=0.01)


def test_one_run_has_the_noise_of_the_test_images() -> None:
    ours, theirs = [Score("a", "linear", "all", 0, 0, 60, 0)], [Score("b", "linear", "all", 0, 0, 50, 0)]
    d = difference(ours, theirs, images=100)
    variance = (0.6 * 0.5 + 0.5 * 0.4 - 0.1**2) / 100  # of the mean of a −1, 0 or 1 an image
    assert d.margin == pytest.approx(196 * math.sqrt(variance))
    assert (d.outcome, difference(ours, theirs, 10_000).outcome) == (0, 1)
    assert difference(theirs, ours, 10_000).outcome == -1


def test_the_best_is_the_best_on_val() -> None:
    cell = {
        Approach("simclr", "linear"): [Score("simclr", "linear", "1", 0, 0, accuracy=50, val=60)],
        Approach("mae", "linear"): [Score("mae", "linear", "1", 0, 0, accuracy=90, val=40)],
    }
    assert best(cell) == Approach("simclr", "linear")


@pytest.mark.parametrize(
    ("who", "how", "pretrained", "said"),
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
def test_an_approach_has_words(who: str, how: str, pretrained: bool, said: str) -> None:
    approach = Approach(who, how)
    assert (approach.pretrained, str(approach)) == (pretrained, said)


def test_labels_ascend_and_all_is_the_last() -> None:
    mixed = [Score("a", "linear", n, 0, 0, 1, 1) for n in ("all", "10", "2", "1", "50", "5")]
    assert list(cells(mixed)) == ["1", "2", "5", "10", "50", "all"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["1"], "with 1 label a class"),
        (["1", "5", "10"], "with 1, 5 and 10 labels a class"),
        (["50", "all"], "with 50 labels a class and with all"),
        (["all"], "with all labels"),
    ],
)
def test_label_counts_in_words(labels: list[str], said: str) -> None:
    assert counts(labels) == said


def test_worth_says_where_pretraining_wins_and_where_it_is_noise() -> None:
    figures = scores("simclr", "linear", 85, 95, 97) + scores("supervised-simclr", "finetune", 50, 80, 97.5)
    assert worth(figures, images=1000) == (
        "With 1 and 10 labels a class pretraining wins (most with 1 label a class: 85.0 % by simclr with a linear "
        "probe, 50.0 % by supervised training of simclr's backbone from scratch; +35.0 ± 3.8 points); "
        "with all labels the difference is within noise (97.0 % by simclr with a linear probe, "
        "97.5 % by supervised training of simclr's backbone from scratch; -0.5 ± 1.4 points)."
    )


def test_a_win_over_pixels_alone_does_not_count_where_more_was_tried() -> None:
    figures = scores("simclr", "linear", 85, 95, 97) + scores("pixels", "linear", 60, 60, 60)
    scratch = [s for s in scores("fixmatch-simclr", "finetune", 0, 95, 0) if s.labels == "10"]
    assert worth(figures + scratch, 1000).startswith("With 10 labels a class the difference is within noise (")
    assert worth(figures, 1000).startswith("With 1 and 10 labels a class and with all pretraining wins (")
    assert advice(figures + scratch, "simclr", 1000).startswith("Pretraining and the best way without it are level")


def test_worth_says_when_it_is_a_loss() -> None:
    figures = scores("mae", "finetune", 20, 30, 40) + scores("pixels", "linear", 40, 60, 80)
    assert worth(figures, 1000).startswith("With 1 and 10 labels a class and with all pretraining loses (")
    assert advice(figures, "mae", 1000).startswith("Do not use mae for these classes")


def test_advice_follows_from_the_differences() -> None:
    simclr, pixels = scores("simclr", "linear", 85, 95, 97), scores("pixels", "linear", 60, 95, 97)
    assert advice(simclr + pixels, "simclr", 1000) == (
        "Use simclr, which is served as the champion: it pays with 1 label a class."
    )
    alike = scores("pixels", "linear", 85, 95, 97)
    assert advice(simclr + alike, "simclr", 1000).startswith(
        "Pretraining and the best way without it are level: simclr"
    )


def test_a_win_over_shorter_trainings_says_so() -> None:
    figures = scores("simclr", "linear", 85, 95, 97) + scores("fixmatch-simclr", "finetune", 50, 94.9, 97)
    shares = {("fixmatch", "1"): 0.25, ("fixmatch", "10"): 1.0, ("supervised", "1"): 1.0}
    assert "50.0 % by FixMatch of simclr's backbone from scratch on 25 % of pretraining's images;" in worth(
        figures, 1000, shares
    )
    assert advice(figures, "simclr", 1000, shares) == (
        "Use simclr, which is served as the champion: it pays with 1 label a class, though not at equal cost yet: "
        "raise the budget of fixmatch to 1."
    )
    assert "of pretraining's images" not in worth(figures, 1000)


def test_leaders_change_with_the_labels() -> None:
    figures = [
        *scores("simclr", "linear", 85, 90, 92),
        *scores("simclr", "finetune", 60, 95, 98),
        *scores("pixels", "linear", 50, 60, 97.9),
    ]
    assert leaders(figures, images=10_000) == (
        "With 1 label a class the best is simclr with a linear probe; with 10 labels a class and with all the best is "
        "simclr fine-tuned (with all labels within noise of another)."
    )


def test_health_names_the_ill_with_the_figure_and_the_cure() -> None:
    assert health({}) == "Nothing was seen of how the trainings went."
    assert health(HEALTHY) == "Training went well: simclr and mae look healthy."
    ill = HEALTHY | {"mae": {"name": "diverged", "because": "the loss is nan", "change": "lower mae.optim.lr"}}
    assert health(ill) == (
        "Not every training went well: simclr looks healthy; mae: diverged, the loss is nan; lower mae.optim.lr."
    )


def test_the_verdict_has_three_sentences_with_labels_and_without() -> None:
    figures = scores("simclr", "linear", 85, 95, 97) + scores("pixels", "linear", 60, 95, 97)
    assert len(sentences(figures, HEALTHY, "simclr", 1000, "")) == 3
    without = sentences([], HEALTHY, "mae", 1000, "which has been right in 9 of 10 data sets")
    assert len(without) == 3
    assert "no labels" in without[1]
    assert "mae finds a second view of an image of val most often, which has been right in 9 of 10" in without[1]
