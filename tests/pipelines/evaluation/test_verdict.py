"""The verdict as an object: its sentences in order, and the health of each training run."""

from pipelines.evaluation.verdict import Figure, Verdict, health

ILL = {"name": "diverged", "because": "The weights are 30 times as large.", "change": "Lower mae.optim.lr (now 1)."}
WELL = {"name": "healthy", "because": "Neighbour consistency is 65 %.", "change": "No change needed."}


def test_health_is_a_line_per_training_run_with_the_figure_and_the_cure() -> None:
    assert health({}) == ()
    assert health({"simclr": WELL, "mae": ILL}) == (
        "SimCLR: healthy. Neighbour consistency is 65 %. No change needed.",
        "MAE: diverged. The weights are 30 times as large. Lower mae.optim.lr (now 1).",
    )


def test_a_verdict_is_read_from_the_answer_on() -> None:
    v = Verdict(
        "Answer.", (Figure("Best", "96.5 %", "of test images"),), ("Well.",), ("But.",), "Served.", ("Use it.",)
    )
    assert list(v) == ["Answer.", "Best: 96.5 % (of test images).", "But.", "Well.", "Served.", "Use it."]
