"""What is said of the champion, of given figures."""

import re

from pipelines.evaluation.advice import advice
from pipelines.evaluation.scores import Score
from tests.pipelines.evaluation.test_verdict import scores


def level(who: str, how: str, labels: str, *accuracies: float) -> list[Score]:
    """One reading a seed."""
    return [Score(who, how, labels, seed, 0, a, a) for seed, a in enumerate(accuracies)]  # type: ignore[arg-type]


def test_it_says_where_the_champion_pays_and_where_it_is_level() -> None:
    figures = scores("simclr", "linear", 85, 95, 97) + scores("pixels", "linear", 60, 95, 90)
    assert advice(figures, "simclr", "embeddings", 1000) == (
        "Use simclr frozen, the champion: it pays with 1 label a class; with 10 labels a class simclr frozen is level "
        "with the best way without pretraining, raw pixels with a linear probe (with 10 labels a class 95.0 against "
        "95.0 %; +0.0 ± 1.9 points); with all labels one training each cannot tell whether simclr frozen, the "
        "champion, pays: set seeds to 3. Simclr's vectors are better than raw pixels with 1 label a class (with 1 "
        "label a class 85.0 against 60.0 %; +25.0 ± 3.8 points)."
    )


def test_it_reads_the_champions_own_scores() -> None:
    """MAE wins everywhere by fine-tuning; that is no reason to use SimCLR's embeddings."""
    figures = [
        *scores("simclr", "linear", 40, 50, 60),
        *scores("mae", "finetune", 90, 90, 90),
        *scores("fixmatch-simclr", "finetune", 70, 70, 70),
    ]
    sentence = advice(figures, "simclr", "embeddings", 1000)
    assert sentence.startswith(
        "Do not use simclr frozen with 1 and 10 labels a class: FixMatch of simclr's backbone from scratch is better "
        "(with 1 label a class 40.0 against 70.0 %; -30.0 ± "
    )
    assert advice(figures, "mae", "finetuning", 1000).startswith("Use mae fine-tuned, the champion: it pays with 1 and")


def test_a_loss_is_never_dropped() -> None:
    """A tie with 5 labels and a loss of 7 points with all are not level."""
    figures = [
        *level("simclr", "linear", "5", 70, 71, 72),
        *level("pixels", "linear", "5", 72, 70, 71),
        *level("simclr", "linear", "all", 80, 81, 82),
        *level("supervised-simclr", "finetune", "5", 60, 61, 62),
        *level("supervised-simclr", "finetune", "all", 88, 88, 88),
    ]
    sentence = advice(figures, "simclr", "embeddings", 2000)
    assert sentence.startswith(
        "Do not use simclr frozen with all labels: supervised training of simclr's backbone from "
    )
    assert "81.0 against 88.0 %; -7.0 ±" in sentence
    assert (
        "; with 5 labels a class simclr frozen is level with the best way without pretraining, raw pixels" in sentence
    )


def test_vectors_beside_raw_pixels_and_a_random_encoder_are_named() -> None:
    figures = [
        *scores("simclr", "linear", 60, 62, 65.8),
        *scores("pixels", "linear", 50, 62.5, 68.2),
        *scores("random-simclr", "linear", 20, 30, 66),
        *scores("mae", "linear", 55, 60, 71.7),
        *scores("random-mae", "linear", 99, 99, 99),
        *scores("simclr", "finetune", 70, 72, 75),
    ]
    sentence = advice(figures, "simclr", "embeddings", 2000)
    assert re.search(
        r" Simclr's vectors are better than raw pixels with 1 label a class \(.*; \+10\.0 ± [\d.]+ points\), not with "
        r"10 labels a class and with all \(most with all labels 65\.8 against 68\.2 %; -2\.4 points\)\.",
        sentence,
    )
    assert re.search(
        r" Simclr's vectors are better than a random encoder with 1 and 10 labels a class \(.*\), not with all labels "
        r"\(with all labels 65\.8 against 66\.0 %; -0\.2 points\)\. ",
        sentence,
    )
    assert sentence.endswith(
        " Frozen features of mae (with all labels 65.8 against 71.7 %; -5.9 points) are better on test."
    )
    assert "vectors" not in advice(figures, "simclr", "finetuning", 2000)


def test_one_lost_column_within_noise_is_no_verdict_and_a_clear_loss_is_one() -> None:
    """80 photographs: ahead of raw pixels in all columns but one, and nowhere beyond the noise of 16 test images."""
    figures = scores("simclr", "linear", 41, 46, 56) + scores("pixels", "linear", 42, 36, 44)
    sentence = advice(figures, "simclr", "embeddings", 16)
    assert (
        " Nothing shows that simclr's vectors are better than raw pixels (at best with all labels 56.0 against"
        in sentence
    )
    assert " Simclr's vectors are worse than raw pixels with 1 label a class (" in advice(
        scores("simclr", "linear", 30, 46, 56) + scores("pixels", "linear", 42, 46, 56), "simclr", "embeddings", 5000
    )


def test_one_training_each_cannot_tell() -> None:
    figures = level("simclr", "linear", "all", 80) + level("pixels", "linear", "all", 60)
    assert advice(figures, "simclr", "embeddings", 10**6) == (
        "One training each cannot tell whether simclr frozen, the champion, pays: set seeds to 3. Nothing shows that "
        "simclr's vectors are better than raw pixels (at best with all labels 80.0 against 60.0 %; +20.0 points)."
    )


def test_a_win_over_shorter_trainings_says_so() -> None:
    figures = scores("simclr", "linear", 85, 95, 97) + scores("fixmatch-simclr", "finetune", 50, 80, 97)
    shares = {("fixmatch-simclr", "1"): 0.25, ("fixmatch-simclr", "10"): 1.0, ("supervised-mae", "1"): 1.0}
    assert advice(figures, "simclr", "embeddings", 1000, shares) == (
        "Use simclr frozen, the champion: it pays with 1 and 10 labels a class, though not at equal cost yet: raise "
        "the budget of fixmatch to 1; with all labels one training each cannot tell whether simclr frozen, the "
        "champion, pays: set seeds to 3."
    )
