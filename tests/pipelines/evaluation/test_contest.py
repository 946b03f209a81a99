"""Did pretraining help? What is said of given figures."""

import re
from dataclasses import replace

import pytest

from pipelines.evaluation.approach import Approach, best, cells
from pipelines.evaluation.contest import answer, caveats, contests, figures, leaders
from pipelines.evaluation.difference import Difference
from pipelines.evaluation.pairs import corrected
from pipelines.evaluation.scores import Score
from pipelines.evaluation.words import at, capital
from tests.pipelines.evaluation.answers import score

LABELS = ("1", "10", "all")


def scores(who: str, how: str, *levels: float, scatter: float = 1.0, seeds: int = 3, images: int = 1000) -> list[Score]:
    """Five samples about each level (one with all labels) per seed, the same ups and downs for everyone."""
    ups = [-1.0, -0.5, 0.0, 0.5, 1.0]
    return [
        score(who, how, labels, seed, sample, level + scatter * up, images=images)  # type: ignore[arg-type]
        for labels, level in zip(LABELS, levels, strict=True)
        for seed in range(seeds)
        for sample, up in enumerate([0.0] if labels == "all" else ups)
    ]


def answered(measured: list[Score]) -> str:
    return answer(contests(measured))


def test_the_best_is_the_best_on_val() -> None:
    cell = {
        Approach("simclr", "linear"): [Score("simclr", "linear", "1", 0, 0, accuracy=50, val=60)],
        Approach("mae", "linear"): [Score("mae", "linear", "1", 0, 0, accuracy=90, val=40)],
    }
    assert best(cell) == Approach("simclr", "linear")


@pytest.mark.parametrize(
    ("who", "how", "pretrained", "text", "encoder", "classifier"),
    [
        ("simclr", "linear", True, "SimCLR + linear probe", "SimCLR", "linear probe"),
        ("mae", "finetune", True, "fine-tuned MAE", "MAE", "fine-tuning"),
        ("dino-pseudolabel", "finetune", True, "fine-tuned DINO with pseudo-labels", "DINO + pseudo-labels",
         "fine-tuning"),
        ("random-mae", "knn", False, "random encoder + kNN", "random encoder, backbone of MAE", "kNN"),
        ("pixels", "linear", False, "raw pixels + linear probe", "raw pixels", "linear probe"),
        ("supervised-simclr", "finetune", False, "supervised training", "supervised training, backbone of SimCLR",
         "from scratch"),
        ("fixmatch-mae", "finetune", False, "FixMatch", "FixMatch, backbone of MAE", "from scratch"),
    ],
)  # fmt: skip
def test_an_approach_has_words(who: str, how: str, pretrained: bool, text: str, encoder: str, classifier: str) -> None:
    a = Approach(who, how)
    assert (a.pretrained, str(a), a.encoder, a.classifier) == (pretrained, text, encoder, classifier)


def test_labels_ascend_and_all_is_the_last() -> None:
    mixed = [Score("a", "linear", n, 0, 0, 1, 1) for n in ("all", "10", "2", "1", "50", "5")]
    assert list(cells(mixed)) == ["1", "2", "5", "10", "50", "all"]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (["1"], "at 1 label per class"),
        (["1", "5", "10"], "at 1, 5 and 10 labels per class"),
        (["50", "all"], "at 50 labels per class and with all labels"),
        (["all"], "with all labels"),
    ],
)
def test_label_counts_in_words(labels: list[str], text: str) -> None:
    assert at(labels) == text


def test_a_name_begins_a_sentence_as_its_authors_write_it() -> None:
    assert [capital(text) for text in ("raw pixels", "kNN", "SimCLR")] == ["Raw pixels", "kNN", "SimCLR"]


def test_the_answer_says_where_pretraining_helped() -> None:
    won = scores("simclr", "linear", 85, 95, 97) + scores("supervised-simclr", "finetune", 50, 80, 97.5)
    assert answered(won) == ("Pretraining helped at 1 and 10 labels per class; no clear difference with all labels.")
    level = scores("simclr", "linear", 85, 95, 99) + scores("fixmatch-simclr", "finetune", 50, 95, 96)
    assert answered(level) == (
        "Pretraining helped at 1 label per class and with all labels; no clear difference at 10 labels per class."
    )


def test_the_answer_says_where_it_did_not() -> None:
    lost = scores("mae", "finetune", 20, 30, 40) + scores("pixels", "linear", 40, 60, 80)
    assert answered(lost) == (
        "Pretraining did not help at 1 and 10 labels per class and with all labels, where raw pixels + linear probe "
        "did better."
    )
    mixed = scores("mae", "finetune", 60, 30, 40) + scores("fixmatch-mae", "finetune", 40, 60, 80)
    assert answered([s for s in mixed if s.labels != "all"]) == (
        "Pretraining helped at 1 label per class; it did not help at 10 labels per class, where FixMatch did better."
    )


def test_a_wide_interval_is_no_clear_difference() -> None:
    measured = scores("dino", "knn", 70, 70, 70) + scores("fixmatch-mae", "finetune", 70, 70, 70)
    assert answered(measured) == (
        "No clear difference at 1 or 10 labels per class or with all labels: what was measured may be chance."
    )


def test_a_win_over_pixels_alone_does_not_count_where_more_was_tried() -> None:
    measured = scores("simclr", "linear", 85, 95, 97) + scores("pixels", "linear", 60, 60, 60)
    scratch = [s for s in scores("fixmatch-simclr", "finetune", 0, 95, 0) if s.labels == "10"]
    assert answered(measured + scratch).startswith("No clear difference at 10 labels per class:")
    assert answered(measured) == "Pretraining helped at 1 and 10 labels per class and with all labels."


@pytest.mark.parametrize(("seeds", "said"), [(1, "one seed"), (2, "two seeds")])
def test_few_seeds_say_what_was_seen_and_claim_nothing(seeds: int, said: str) -> None:
    """However far apart, and however many label samples: what another seed would give is not known."""
    measured = scores("simclr", "linear", 85, 95, 97, seeds=seeds) + scores(
        "fixmatch-mae", "finetune", 60, 60, 60, seeds=seeds
    )
    found = contests(measured)
    assert answer(found) == (
        "SimCLR + linear probe reached 85.0 % test accuracy and FixMatch 60.0 % at 1 label per class, "
        f"with {said} each: another seed may change this."
    )
    assert str(figures(found, {})[2]) == f"Difference: +25.0 points ({said}: a different seed may change this)."


def test_seed_times_label_sample_is_not_the_number_of_runs() -> None:
    """Ten label samples of three seeds, of which one made all the difference."""
    theirs = [score("fixmatch-mae", "finetune", "1", seed, n, 80) for seed in range(3) for n in range(10)]
    ours = [score("mae", "linear", "1", seed, n, 80 + 12 * (seed == 1)) for seed in range(3) for n in range(10)]
    assert answered(ours + theirs).startswith("No clear difference")


def test_the_best_of_many_needs_a_larger_difference() -> None:
    """Against one rival 3.6 points are clear, as the best of six they are not; interval and outcome agree."""
    theirs = [score("fixmatch-mae", "finetune", "1", seed, 0, 80) for seed in range(3)]

    def approaches(many: int) -> list[Score]:
        ways = [(who, how) for who in ("simclr", "mae") for how in ("linear", "knn", "finetune")][:many]
        return [
            score(who, how, "1", seed, 0, 80 + seed / 5 if n else 84 + seed / 5)  # type: ignore[arg-type]
            for n, (who, how) in enumerate(ways)
            for seed in range(3)
        ]

    (alone,), (many,) = contests(approaches(1) + theirs), contests(approaches(6) + theirs)
    assert (alone.difference.outcome, many.difference.outcome) == (1, 0)
    assert (alone.rivals, many.rivals) == ((1, 1), (6, 1))
    assert alone.difference.interval.startswith("95 % interval +")
    assert many.difference.interval.startswith("99.2 % interval −")
    assert many.difference.points == alone.difference.points


def test_holm_stops_at_the_first_that_is_not_clear() -> None:
    sure, likely, unsure = (Difference(90 + d, 90, 0.1, 0.5, seeds=10) for d in (9, 1.3, 0.9))
    found = corrected([unsure, sure, likely])
    assert [d.outcome for d in found] == [0, 1, 1]
    assert [d.level for d in found] == pytest.approx([0.95, 1 - 0.05 / 3, 1 - 0.05 / 2])
    alike = Difference(91.2, 90, 0.1, 0.5, seeds=10)  # clear alone: ± 1.0
    found = corrected([alike, alike, alike])
    assert [d.outcome for d in found] == [0, 0, 0]
    assert {d.level for d in found} == {1 - (1 - 0.95) / 3}
    assert alike.outcome == 1


def test_nothing_to_compare_is_said() -> None:
    assert answered(scores("simclr", "linear", 85, 95, 97)) == (
        "Nobody can say whether pretraining helped: there is nothing to compare it with."
    )
    assert figures([], {}) == ()


def test_three_figures_hold_both_sides_and_their_difference() -> None:
    measured = scores("simclr", "linear", 85, 95, 97) + scores("fixmatch-simclr", "finetune", 50, 94.9, 97)
    found = contests(measured)
    shares = {("fixmatch-simclr", "1"): 0.25, ("fixmatch-simclr", "10"): 1.0, ("supervised-mae", "1"): 1.0}
    assert [str(figure) for figure in figures(found, shares)] == [
        "Best pretrained at 1 label per class: 85.0 % (test accuracy of SimCLR + linear probe).",
        "Best without pretraining: 50.0 % (test accuracy of FixMatch, which saw 25 % as many images as pretraining).",
        "Difference: +35.0 points (95 % interval +31.2 to +38.8).",
    ]
    few = contests([*measured, *(replace(s, sample=9) for s in scores("simclr", "linear", 87, 95, 97))])
    assert figures(few, shares)[0].note == "test accuracy of SimCLR + linear probe with the 5 label samples of FixMatch"
    tie = figures(found[1:], shares)
    assert tie[1].note == "test accuracy of FixMatch"
    assert re.fullmatch(r"95 % interval −\d\.\d to \+\d\.\d; 0 is inside, so it may be chance", tie[2].note)


def test_caveats_name_seeds_shares_and_label_counts() -> None:
    measured = [
        *scores("simclr", "linear", 85, 95, 97),
        *(s for s in scores("fixmatch-simclr", "finetune", 50, 90, 0) if s.labels != "all"),
        *(s for s in scores("supervised-simclr", "finetune", 40, 80, 98) if s.labels != "1"),
        score("simclr", "linear", "5", 0, 0, 90),
    ]
    shares = {("fixmatch-simclr", "1"): 0.15, ("supervised-simclr", "10"): 0.05, ("supervised-simclr", "all"): 1.0}
    said = list(caveats(measured, contests(measured), shares))
    assert said == [
        "Validation images chose the best of 1 with pretraining and the best of 1 without at 1 label per class.",
        "Training from scratch saw 5 to 15 % as many images as pretraining. Set supervised.budget and fixmatch.budget "
        "to 1 (as many as pretraining) for an equal comparison.",
        "Supervised training was not measured at 1 or 5 labels per class.",
        "FixMatch was not measured at 5 labels per class or with all labels.",
    ]
    many = [*measured, *scores("mae", "knn", 20, 20, 20), *scores("pixels", "linear", 10, 10, 10)]
    assert next(caveats(many, contests(many), {})) == (
        "Validation images chose the best of 2 with pretraining and the best of 2 without at 1 label per class. "
        "The interval allows for 2 comparisons."
    )
    alone = scores("simclr", "linear", 85, 95, 97) + scores("pixels", "linear", 60, 60, 60)
    assert "No baseline was trained from scratch: only raw pixels and random encoders stand on the other side." in list(
        caveats(alone, contests(alone), {})
    )


def test_leaders_change_with_the_labels() -> None:
    measured = [
        *scores("simclr", "linear", 85, 90, 92),
        *scores("simclr", "finetune", 60, 95, 98),
        *scores("pixels", "linear", 50, 60, 97.9),
    ]
    assert leaders(measured) == [
        "At 1 label per class: SimCLR + linear probe.",
        "At 10 labels per class and with all labels: fine-tuned SimCLR. Others are not clearly worse with all labels.",
    ]
    assert leaders([s for s in measured if s.seed == 0]) == [
        "At 1 label per class: SimCLR + linear probe.",
        "At 10 labels per class and with all labels: fine-tuned SimCLR.",
        "This is of one seed. A different seed may change the order.",
    ]
