"""Which encoder is promoted, of given readings on val."""

from pipelines.evaluation.champion import Candidate, choose, what_is_read
from tests.pipelines.evaluation.answers import score

WHAT = "Validation accuracy"


def candidate(level: float, flops: float = 1e6, scatter: float = 1.0, images: int = 1000) -> Candidate:
    """Five samples about a level, the same ups and downs for everyone; what test says must not matter."""
    ups = [-1.0, -0.5, 0.0, 0.5, 1.0]
    readings = [
        score(f"{level}", "linear", "5", 0, i, 100 - level, level + scatter * up, images) for i, up in enumerate(ups)
    ]
    return Candidate.of(readings, flops)


def test_the_best_on_val_is_chosen_and_all_are_named() -> None:
    chosen = choose({"simclr": candidate(80), "mae": candidate(70), "dino": candidate(60)}, WHAT, 1000)
    assert chosen.champion == "simclr"
    assert chosen.reason == (
        "It did best on the validation images. Validation accuracy: SimCLR 80.0 %, MAE 70.0 %, DINO 60.0 % "
        "(1,000 images)."
    )


def test_within_one_standard_error_the_cheaper_one_is_chosen() -> None:
    """80 and 79.5 % of 1,000 images: the standard error is about √((0.8·0.205 + 0.795·0.2) / 1000), or 1.8 points."""
    near = {"simclr": candidate(80, 9e6), "mae": candidate(79.5, 4e6), "dino": candidate(77, 1e6)}
    chosen = choose(near, WHAT, 1000)
    assert chosen.champion == "mae"
    assert chosen.reason == (
        "It is within one standard error of SimCLR, which did best on the validation images. "
        "It costs less: 4 instead of 9 MFLOPs per image. "
        "Validation accuracy: SimCLR 80.0 %, MAE 79.5 %, DINO 77.0 % (1,000 images)."
    )
    many = {"simclr": candidate(80, 9e6, images=100_000), "mae": candidate(79.5, 4e6, images=100_000)}
    assert choose(many, WHAT, 100_000).champion == "simclr"  # there the same half point is no noise


def test_of_equal_ones_none_is_said_to_be_the_best() -> None:
    for flops in (1e6, 5e5):
        chosen = choose({"simclr": candidate(80), "mae": candidate(80, flops), "dino": candidate(60)}, WHAT, 1000)
        assert chosen.champion == ("simclr" if flops == 1e6 else "mae")
        assert chosen.reason.startswith("No other method did better on the validation images. Validation accuracy: ")


def test_of_equal_cost_the_better_one_is_chosen() -> None:
    assert choose({"simclr": candidate(79.9), "dino": candidate(80.0)}, WHAT, 100).champion == "dino"


def test_ups_and_downs_that_all_share_are_no_noise_of_the_comparison() -> None:
    wide = {
        "simclr": candidate(80, 9e6, scatter=20, images=100_000),
        "mae": candidate(79.5, 4e6, scatter=20, images=100_000),
    }
    assert choose(wide, WHAT, 100_000).champion == "simclr"


def test_the_noise_of_seeds_is_part_of_the_standard_error() -> None:
    """0.5 points ahead on average, by one seed of three."""
    ours, theirs = (
        Candidate.of([score(who, "linear", "5", seed, 0, 0, val, 100_000) for seed, val in enumerate(vals)], flops)
        for who, vals, flops in (("a", (80, 80, 83), 9e6), ("b", (80.5, 80.5, 80.5), 4e6))
    )
    assert choose({"simclr": ours, "mae": theirs}, WHAT, 100_000).champion == "mae"


def test_without_labels_the_percentages_are_compared() -> None:
    near = {"simclr": Candidate(80.0, 9e6), "mae": Candidate(79.5, 4e6)}
    assert [choose(near, WHAT, images).champion for images in (1000, 10**6)] == ["mae", "simclr"]


def test_a_choice_by_few_images_is_marked() -> None:
    assert choose({"simclr": candidate(80)}, WHAT, 8).reason == (
        "It is the only method of this run. Validation accuracy: SimCLR 80.0 % (8 images). "
        "8 validation images are few, so this choice is uncertain."
    )


def test_what_is_read_is_said_in_words() -> None:
    assert what_is_read("embeddings", "5") == "Validation accuracy of a linear probe at 5 labels per class"
    assert what_is_read("finetuning", "all") == "Validation accuracy of fine-tuning with all labels"
