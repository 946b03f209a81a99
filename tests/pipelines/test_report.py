"""What the table's sentences say of the figures."""

import pytest

from pipelines import config, report

WHO = {m: (m, f"random-{m}", "pixels") for m in report.METHODS}
FIGURES = ("linear_1", "linear_5", "linear_10", "linear_all", "knn_all", "retrieval")


def figures(level: float) -> dict[str, float]:
    return dict.fromkeys(FIGURES, level) | {f"linear_{n}_sd": 2.0 for n in (1, 5, 10)}


@pytest.fixture
def metrics() -> dict[str, dict[str, dict[str, float]]]:
    return {m: {who: figures(80.0 if who == m else 50.0) for who in WHO[m]} for m in report.METHODS}


def test_clearly_above_everywhere_is_one_sentence(metrics: dict[str, dict[str, dict[str, float]]]) -> None:
    assert report.verdicts(config.load(), metrics) == [
        "every method is above its own random encoder and above raw pixels in every column"
    ]


def test_below_equal_and_within_a_standard_deviation_are_told_apart(
    metrics: dict[str, dict[str, dict[str, float]]],
) -> None:
    metrics["mae"]["pixels"] |= {"linear_1": 81.0, "knn_all": 80.0, "linear_5": 78.5, "linear_10": 77.9}
    assert report.verdicts(config.load(), metrics) == [
        "mae is not above pixels in linear_1, knn_all",
        "mae is above pixels by less than one sd of the draws in linear_5",
    ]


def test_the_table_has_a_line_for_every_method_and_control(metrics: dict[str, dict[str, dict[str, float]]]) -> None:
    rows = report.table(config.load(), metrics)
    assert [row["encoder"] for row in rows] == [
        *("simclr", "mae", "dino", "random-simclr", "random-mae", "random-dino", "pixels")
    ]
    assert rows[0]["5 labels a class"] == "80.0 ± 2.0"
    assert rows[0]["kNN"] == "80.0"
    assert len({len(line) for line in report.text(rows).splitlines()}) == 1
