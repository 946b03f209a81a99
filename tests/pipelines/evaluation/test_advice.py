"""What is said of the champion, of given figures."""

import re

from pipelines.evaluation.advice import advice
from pipelines.evaluation.scores import Score
from tests.pipelines.evaluation.answers import score
from tests.pipelines.evaluation.test_contest import scores


def level(who: str, how: str, labels: str, *accuracies: float) -> list[Score]:
    """One reading per seed."""
    return [score(who, how, labels, seed, 0, a) for seed, a in enumerate(accuracies)]  # type: ignore[arg-type]


def test_it_says_where_the_champion_helps_and_where_nobody_knows() -> None:
    figures = scores("simclr", "linear", 85, 95, 97) + scores("pixels", "linear", 60, 95, 90)
    assert advice(figures, "simclr", "embeddings") == (
        "Use SimCLR's embeddings: they beat the best result without pretraining at 1 label per class and with all "
        "labels.",
        "No clear difference between SimCLR's embeddings and raw pixels + linear probe at 10 labels per class "
        "(95.0 % against 95.0 % of test images).",
        "One pretrained encoder can be reused for new label sets. More images or epochs may show a difference.",
        "SimCLR's embeddings beat raw pixels at 1 label per class and with all labels "
        "(85.0 % against 60.0 % of test images at 1 label per class).",
        "No clear difference between SimCLR's embeddings and raw pixels at 10 labels per class "
        "(95.0 % against 95.0 % of test images).",
    )


def test_it_reads_the_champions_own_scores() -> None:
    """MAE wins everywhere by fine-tuning; that is no reason to use SimCLR's embeddings."""
    figures = [
        *scores("simclr", "linear", 40, 50, 60),
        *scores("mae", "finetune", 90, 90, 90),
        *scores("fixmatch-simclr", "finetune", 70, 70, 70),
    ]
    assert advice(figures, "simclr", "embeddings")[0] == (
        "Do not use SimCLR's embeddings at 1 and 10 labels per class and with all labels: FixMatch is better "
        "(70.0 % against 40.0 % of test images at 1 label per class)."
    )
    assert advice(figures, "mae", "finetuning")[0] == (
        "Fine-tune MAE: it beats the best result without pretraining at 1 and 10 labels per class and with all labels."
    )


def test_a_loss_is_never_dropped() -> None:
    """No clear difference at 5 labels per class and a loss of 7 points with all labels are two sentences."""
    figures = [
        *level("simclr", "linear", "5", 70, 71, 72),
        *level("pixels", "linear", "5", 72, 70, 71),
        *level("simclr", "linear", "all", 80, 81, 82),
        *level("supervised-simclr", "finetune", "5", 60, 61, 62),
        *level("supervised-simclr", "finetune", "all", 88, 88.5, 90),
    ]
    loss, tie, *_ = advice(figures, "simclr", "embeddings")
    assert loss == (
        "Do not use SimCLR's embeddings with all labels: supervised training is better "
        "(88.8 % against 81.0 % of test images)."
    )
    assert tie.startswith(
        "No clear difference between SimCLR's embeddings and raw pixels + linear probe at 5 labels per class"
    )


def test_embeddings_beside_raw_pixels_and_a_random_encoder_are_named() -> None:
    figures = [
        *scores("simclr", "linear", 60, 62, 65.8),
        *scores("pixels", "linear", 50, 62.5, 72.2),
        *scores("random-simclr", "linear", 20, 30, 66),
        *scores("mae", "linear", 55, 60, 77.7),
        *scores("random-mae", "linear", 99, 99, 99),
        *scores("simclr", "finetune", 70, 72, 75),
    ]
    found = advice(figures, "simclr", "embeddings")
    assert found[-6:] == (
        "SimCLR's embeddings beat raw pixels at 1 label per class (60.0 % against 50.0 % of test images).",
        "SimCLR's embeddings are worse than raw pixels with all labels (65.8 % against 72.2 % of test images).",
        "No clear difference between SimCLR's embeddings and raw pixels at 10 labels per class "
        "(62.0 % against 62.5 % of test images).",
        "SimCLR's embeddings beat a random encoder at 1 and 10 labels per class "
        "(60.0 % against 20.0 % of test images at 1 label per class).",
        "No clear difference between SimCLR's embeddings and a random encoder with all labels "
        "(65.8 % against 66.0 % of test images).",
        "MAE has better embeddings than SimCLR with all labels (77.7 % against 65.8 % of test images).",
    )
    assert not re.search("embeddings", " ".join(advice(figures, "simclr", "finetuning")))


def test_one_lost_column_of_few_images_is_no_verdict() -> None:
    """80 photographs: ahead of raw pixels in all columns but one, and nowhere beyond the noise of 16 test images."""
    figures = scores("simclr", "linear", 41, 46, 56, images=16) + scores("pixels", "linear", 42, 36, 44, images=16)
    assert advice(figures, "simclr", "embeddings")[-1].startswith(
        "No clear difference between SimCLR's embeddings and raw pixels at 1 and 10 labels per class and with all "
    )


def test_one_seed_says_what_was_seen_and_claims_nothing() -> None:
    figures = [
        *level("simclr", "linear", "5", 50),
        *level("pixels", "linear", "5", 60),
        *level("simclr", "linear", "all", 80),
        *level("pixels", "linear", "all", 60),
        *level("mae", "linear", "all", 90),
    ]
    assert advice(figures, "simclr", "embeddings") == (
        "With one seed, SimCLR's embeddings did better than raw pixels + linear probe with all labels "
        "(80.0 % against 60.0 % of test images).",
        "With one seed, SimCLR's embeddings did worse than raw pixels + linear probe at 5 labels per class "
        "(50.0 % against 60.0 % of test images).",
        "A different seed may change this. Set seeds=3 to know whether to use SimCLR's embeddings.",
        "With one seed, SimCLR's embeddings did better than raw pixels with all labels "
        "(80.0 % against 60.0 % of test images).",
        "With one seed, SimCLR's embeddings did worse than raw pixels at 5 labels per class "
        "(50.0 % against 60.0 % of test images).",
        "With one seed, MAE's embeddings did better than SimCLR's with all labels "
        "(90.0 % against 80.0 % of test images).",
    )
    assert advice(level("simclr", "linear", "all", 80), "simclr", "embeddings") == (
        "SimCLR's embeddings: there is nothing to compare with.",
    )
