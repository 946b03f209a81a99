"""What a study says of figures whose truth is known."""

import numpy as np
import pytest

from pipelines.evaluation.decision import Decision
from pipelines.studies import finding
from pipelines.studies.figure import Figure, compare
from pipelines.studies.study import Claim, Level, Study


def claim(*than: str, lower: bool = False) -> Claim:
    return Claim("A is better.", "table 1", "A", than, by=1.0, lower=lower)


def a_study(*claims: Claim, levels: str = "ABC") -> Study:
    return Study("T", "Which?", "mae", "us", "letter", ("linear_5",), {name: Level() for name in levels}, claims, {})


def figures(**levels: tuple[float, ...]) -> dict[str, dict[str, Figure]]:
    return {"linear_5": {name: Figure(values) for name, values in levels.items()}}


def test_a_claim_holds_fails_or_is_open_by_its_interval() -> None:
    of = figures(A=(60.0, 60.2, 59.8), B=(50.0, 50.1, 49.9), C=(60.0, 60.1, 59.9))
    verdicts = [finding.findings(a_study(claim(*than)), "small", of)[0].verdict for than in ("B", "C", "BC")]
    assert verdicts == ["HOLDS", "DOES NOT HOLD", "DOES NOT HOLD"]
    noisy = figures(A=(60.0, 70.0, 50.0), B=(50.0, 49.0, 58.0))
    (open_one,) = finding.findings(a_study(claim("B")), "small", noisy)
    assert open_one.decision is Decision.OPEN
    assert open_one.needed.startswith("About ")


def test_of_costs_the_lower_one_is_better() -> None:
    of = figures(A=(10.0, 10.1, 9.9), B=(30.0, 30.2, 29.9))
    (found,) = finding.findings(a_study(claim("B", lower=True)), "small", of)
    assert found.verdict == "HOLDS"
    assert found.parts[0].difference.points == pytest.approx(20.03, abs=0.01)


def test_a_level_that_was_not_run_leaves_the_claim_open() -> None:
    (found,) = finding.findings(a_study(claim("B")), "small", figures(A=(1.0, 2.0, 3.0)))
    assert (found.decision, found.verdict, found.needed) == (None, "not run", "Not run here: B.")


def test_one_seed_decides_nothing() -> None:
    (found,) = finding.findings(a_study(claim("B")), "small", figures(A=(90.0,), B=(10.0,)))
    assert (found.verdict, found.needed) == ("UNDERPOWERED", "At least 3 seeds are needed.")


def test_the_answer_names_the_best_level_and_those_not_clearly_worse() -> None:
    of = figures(A=(60.0, 60.2, 59.8), B=(50.0, 50.1, 49.9), C=(59.9, 60.4, 59.6))["linear_5"]
    assert finding.answer(a_study(), {"linear_5": of}, []) == (
        "Best by linear probe, 5 labels per class: A, 60.0 ± 0.2 %. Not clearly worse: C."
    )
    one = {name: Figure(f.values[:1]) for name, f in of.items()}
    assert finding.answer(a_study(), {"linear_5": one}, []).endswith("a different seed may change this.")


def test_answers_to_single_images_widen_the_interval() -> None:
    """The same figures of the seeds, with 100 images and with 10,000."""
    widths = []
    for images in (100, 10_000):
        rng = np.random.default_rng(0)
        ours, theirs = (
            rng.permuted(np.tile(np.arange(images) < share * images, (3, 1)), axis=1) for share in (0.6, 0.5)
        )
        of = [Figure(tuple(100 * answers.mean(axis=1)), answers.astype(float)) for answers in (ours, theirs)]
        widths.append(compare(*of).margin)
    assert widths[0] == pytest.approx(10 * widths[1], rel=0.2)


def test_a_claim_whose_levels_are_the_same_runs_is_not_decided() -> None:
    """A batch that was cut to the images is the same on both sides: that proves nothing."""
    same = Figure((60.0, 61.0, 62.0), of="one cell")
    (found,) = finding.findings(a_study(claim("B")), "small", {"linear_5": {"A": same, "B": same}})
    assert (found.verdict, found.needed) == ("not run", "Its levels are the same training runs here.")


def test_a_claim_is_decided_by_a_metric_of_its_kind_or_not_at_all() -> None:
    of = figures(A=(60.0, 60.2, 59.8), B=(50.0, 50.1, 49.9))["linear_5"]
    verdicts = [
        finding.findings(a_study(claim("B")), "small", {metric: of})[0] for metric in ("linear_all", "retrieval")
    ]
    assert [found.verdict for found in verdicts] == ["HOLDS", "not run"]
    assert verdicts[1].needed == "It needs what was not measured here: linear probe, 5 labels per class."


def test_a_claim_with_a_condition_is_decided_where_it_is_met() -> None:
    of = figures(A=(60.0, 60.2, 59.8), B=(50.0, 50.1, 49.9))
    only = Claim("A is better after long training.", "table 1", "A", ("B",), by=1.0, scales=("gpu",))
    verdicts = [finding.findings(a_study(only), scale, of)[0].verdict for scale in ("small", "gpu")]
    assert verdicts == ["not run", "HOLDS"]


def test_a_part_that_fails_decides_only_at_the_level_for_the_number_of_parts() -> None:
    """Difference 0.0 ± 0.23 (standard error) of three seeds: below 1 at 95 %, not at 98.3 %."""
    of = figures(A=(60.0, 60.4, 59.6), B=(60.0, 60.0, 60.0), C=(50.0, 50.1, 49.9), D=(50.0, 50.1, 49.9))
    alone, among_three = (
        finding.findings(a_study(claim(*than), levels="ABCD"), "small", of)[0].verdict for than in ("B", "BCD")
    )
    assert (alone, among_three) == ("DOES NOT HOLD", "UNDERPOWERED")


def test_the_answer_says_so_where_an_untrained_encoder_is_better() -> None:
    """The best of two masks is of no use when training made the features worse."""
    base = vars(a_study()) | {"levels": {"A": Level(), "B": Level(), "random encoder": Level(who="random-mae")}}
    of = figures(A=(60.0, 60.2, 59.8), B=(50.0, 50.1, 49.9))
    of["linear_5"]["random encoder"] = Figure((70.0, 71.0, 69.0))
    of["finetune_5"] = {"A": Figure((1.0, 2.0, 3.0)), "B": Figure((9.0, 9.1, 8.9))}
    assert finding.answer(Study(**base), of, []) == (
        "Best by linear probe, 5 labels per class: A, 60.0 ± 0.2 %. Every other level is clearly worse. But the random "
        "encoder has 70.0 ± 1.0 %: training did not help. Best by fine-tuning, 5 labels per class: B, 9.00 ± 0.10 %. "
        "Every other level is clearly worse."
    )
