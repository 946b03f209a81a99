"""Did pretraining help? What is said of given figures."""

from dataclasses import replace

import pytest

from pipelines.evaluation.approach import Approach, best, cells
from pipelines.evaluation.contest import answer, caveats, contests, figures, leaders
from pipelines.evaluation.scores import Score
from pipelines.evaluation.words import at, capital

LABELS = ("1", "10", "all")


def scores(who: str, how: str, *levels: float, scatter: float = 1.0) -> list[Score]:
    """Five samples about each level (one with all labels), the same ups and downs for everyone."""
    ups = [-1.0, -0.5, 0.0, 0.5, 1.0]
    return [
        Score(who, how, labels, 0, sample, level + scatter * up, level + scatter * up)  # type: ignore[arg-type]
        for labels, level in zip(LABELS, levels, strict=True)
        for sample, up in enumerate([0.0] if labels == "all" else ups)
    ]


def answered(measured: list[Score], images: int = 1000) -> str:
    return answer(contests(measured, images))


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
    assert answered(won) == "Pretraining helped at 1 and 10 labels per class."
    level = scores("simclr", "linear", 85, 95, 97) + scores("fixmatch-simclr", "finetune", 50, 95, 97)
    assert answered(level) == "Pretraining helped at 1 label per class; no clear winner at 10 labels per class."


def test_the_answer_says_where_it_did_not() -> None:
    lost = scores("mae", "finetune", 20, 30, 40) + scores("pixels", "linear", 40, 60, 80)
    assert answered(lost) == (
        "Pretraining did not help at 1 and 10 labels per class, where raw pixels + linear probe did better."
    )
    mixed = scores("mae", "finetune", 60, 30, 40) + scores("fixmatch-mae", "finetune", 40, 60, 80)
    assert answered(mixed) == (
        "Pretraining helped at 1 label per class; it did not help at 10 labels per class, where FixMatch did better."
    )


def test_ties_alone_have_no_winner() -> None:
    measured = scores("dino", "knn", 70, 70, 70) + scores("fixmatch-mae", "finetune", 70, 70, 70)
    again = [replace(s, seed=1) for s in measured]
    assert answered(measured + again) == (
        "No clear winner at 1 or 10 labels per class or with all labels: any difference may be chance."
    )


def test_a_win_over_pixels_alone_does_not_count_where_more_was_tried() -> None:
    measured = scores("simclr", "linear", 85, 95, 97) + scores("pixels", "linear", 60, 60, 60)
    scratch = [s for s in scores("fixmatch-simclr", "finetune", 0, 95, 0) if s.labels == "10"]
    assert answered(measured + scratch) == "No clear winner at 10 labels per class: any difference may be chance."
    assert answered(measured) == "Pretraining helped at 1 and 10 labels per class."


def test_one_training_run_each_is_neither_a_win_nor_a_loss() -> None:
    """However far apart: what another seed would give is not known."""
    measured = scores("simclr", "linear", 85, 95, 97) + scores("pixels", "linear", 60, 60, 60)
    assert answered([s for s in measured if s.labels == "all"], 10**6) == (
        "One training run each cannot show whether pretraining helped: set seeds to 3."
    )
    said = list(caveats(measured, contests(measured, 10**6), {}))
    assert said[-1] == "With all labels each approach was trained once, so no winner is named there."


def test_nothing_to_compare_is_said() -> None:
    assert answered(scores("simclr", "linear", 85, 95, 97)) == (
        "Nobody can say whether pretraining helped: there is nothing to compare it with."
    )
    assert figures([], {}) == ()


def test_three_figures_hold_both_sides_and_their_difference() -> None:
    measured = scores("simclr", "linear", 85, 95, 97) + scores("fixmatch-simclr", "finetune", 50, 94.9, 97)
    found = contests(measured, 1000)
    shares = {("fixmatch-simclr", "1"): 0.25, ("fixmatch-simclr", "10"): 1.0, ("supervised-mae", "1"): 1.0}
    assert [str(figure) for figure in figures(found, shares)] == [
        "Best pretrained at 1 label per class: 85.0 % (test accuracy of SimCLR + linear probe).",
        "Best without pretraining: 50.0 % (test accuracy of FixMatch, which saw 25 % as many images as pretraining).",
        "Difference: +35.0 points (95 % interval +31.2 to +38.8).",
    ]
    few = contests([*measured, *(replace(s, sample=9) for s in scores("simclr", "linear", 87, 95, 97))], 1000)
    assert figures(few, shares)[0].note == "test accuracy of SimCLR + linear probe with the 5 label samples of FixMatch"
    tie = figures(found[1:], shares)
    assert tie[1].note == "test accuracy of FixMatch"
    assert tie[2].note == "95 % interval −1.8 to +2.0; 0 is inside, so it may be chance"
    assert figures(found[2:], shares)[2].note == "one training run each, so it may be chance"


def test_caveats_name_seeds_shares_and_label_counts() -> None:
    measured = [
        *scores("simclr", "linear", 85, 95, 97),
        *(s for s in scores("fixmatch-simclr", "finetune", 50, 90, 0) if s.labels != "all"),
        *(s for s in scores("supervised-simclr", "finetune", 40, 80, 98) if s.labels != "1"),
        Score("simclr", "linear", "5", 0, 0, 90, 90),
    ]
    shares = {("fixmatch-simclr", "1"): 0.15, ("supervised-simclr", "10"): 0.05, ("supervised-simclr", "all"): 1.0}
    said = list(caveats(measured, contests(measured, 1000), shares))
    assert said == [
        "Each method was trained with one seed. Set seeds=3 to see how much the result depends on the seed.",
        "Training from scratch saw 5 to 15 % as many images as pretraining. Set supervised.budget and fixmatch.budget "
        "to 1 (as many as pretraining) for an equal comparison.",
        "Supervised training was not measured at 1 or 5 labels per class.",
        "FixMatch was not measured at 5 labels per class or with all labels.",
        "With all labels each approach was trained once, so no winner is named there.",
    ]
    alone = scores("simclr", "linear", 85, 95, 97) + scores("pixels", "linear", 60, 60, 60)
    assert "No baseline was trained from scratch: only raw pixels and random encoders stand on the other side." in list(
        caveats(alone, contests(alone, 1000), {})
    )


def test_leaders_change_with_the_labels() -> None:
    measured = [
        *scores("simclr", "linear", 85, 90, 92),
        *scores("simclr", "finetune", 60, 95, 98),
        *scores("pixels", "linear", 50, 60, 97.9),
    ]
    assert leaders(measured, images=10_000) == [
        "At 1 label per class: SimCLR + linear probe.",
        "At 10 labels per class and with all labels: fine-tuned SimCLR. Others are not clearly worse with all labels.",
    ]
