"""Which encoder is promoted, of given readings on val."""

from pipelines.evaluation.champion import Candidate, choose, what_is_read
from pipelines.evaluation.scores import Score


def candidate(level: float, flops: float = 1e6, scatter: float = 1.0) -> Candidate:
    """Five samples about a level, the same ups and downs for everyone; what test says must not matter."""
    ups = [-1.0, -0.5, 0.0, 0.5, 1.0]
    return Candidate(
        [Score("m", "linear", "5", 0, i, 100 - level, level + scatter * up) for i, up in enumerate(ups)], flops
    )


def test_the_best_on_val_is_chosen_and_all_are_named() -> None:
    chosen = choose({"simclr": candidate(80), "mae": candidate(70), "dino": candidate(60)}, "linear probe", 1000)
    assert chosen.champion == "simclr"
    assert chosen.reason == "linear probe on 1,000 images of val: simclr 80.0, mae 70.0, dino 60.0"


def test_within_one_standard_error_the_cheaper_one_is_chosen() -> None:
    """80 and 79.5 % of 1,000 images: the standard error is 100 √((0.8·0.205 + 0.795·0.2 − 0.005²) / 1000) = 1.8."""
    near = {"simclr": candidate(80, 9e6), "mae": candidate(79.5, 4e6), "dino": candidate(77, 1e6)}
    chosen = choose(near, "linear probe", 1000)
    assert chosen.champion == "mae"
    assert chosen.reason.endswith(
        "simclr 80.0, mae 79.5, dino 77.0; mae is within one standard error of simclr and costs 4 MFLOPs an image "
        "against 9"
    )
    assert choose(near, "linear probe", 10**6).champion == "simclr"  # there the same half point is no noise


def test_of_equal_cost_the_better_one_is_chosen() -> None:
    assert choose({"simclr": candidate(79.9), "dino": candidate(80.0)}, "linear probe", 100).champion == "dino"


def test_ups_and_downs_that_all_share_are_no_noise_of_the_comparison() -> None:
    wide = {"simclr": candidate(80, 9e6, scatter=20), "mae": candidate(79.5, 4e6, scatter=20)}
    assert choose(wide, "linear probe", 10**6).champion == "simclr"


def test_a_choice_by_few_images_is_marked() -> None:
    assert choose({"simclr": candidate(80)}, "retrieval", 8).reason == (
        "retrieval on 8 images of val: simclr 80.0; 8 images say little"
    )


def test_what_is_read_is_said_in_words() -> None:
    assert what_is_read("embeddings", "5") == "linear probe of frozen features with 5 labels a class"
    assert what_is_read("finetuning", "all") == "fine-tuned with all labels"
