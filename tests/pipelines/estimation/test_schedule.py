"""When stages run, against cases that were computed by hand."""

import pytest

from pipelines.estimation.schedule import (
    Span,
    apportioned,
    highest,
    on_gpus,
    schedule,
    sharing,
    total,
)

ALONE = {"a": (), "b": (), "c": ()}


@pytest.mark.parametrize(
    ("seconds", "slots", "cores", "wall"),
    [
        ({"a": 10, "b": 10}, 2, 2, 10),
        ({"a": 10, "b": 10}, 1, 2, 20),
        ({"a": 10, "b": 10}, 2, 1, 20),
        ({"a": 10, "b": 10, "c": 10}, 3, 2, 15),  # each gets two thirds of a core
        ({"a": 10, "b": 4}, 2, 1, 14),  # together until b ends at 8, then a alone
        ({"a": 6, "b": 6, "c": 6}, 2, 2, 12),  # the third waits for a slot
        ({}, 2, 2, 0),
    ],
)
def test_stages_share_slots_and_cores(seconds: dict[str, float], slots: int, cores: float, wall: float) -> None:
    assert total(schedule(seconds, ALONE, slots, sharing(cores))) == pytest.approx(wall)


def test_other_programs_take_their_share() -> None:
    assert total(schedule({"a": 10}, ALONE, 2, sharing(2, others=3))) == pytest.approx(20)
    assert total(schedule({"a": 10, "b": 10}, ALONE, 2, sharing(2, others=2))) == pytest.approx(20)


def test_a_stage_waits_for_its_upstream_and_the_longest_chain_goes_first() -> None:
    graph = {"short": (), "pretrain": ("prepare",), "finetune": ("pretrain",)}  # prepare is done
    spans = schedule({"short": 3, "pretrain": 2, "finetune": 5}, graph, 1, sharing(1))
    assert spans == {"pretrain": Span(0, 2), "finetune": Span(2, 7), "short": Span(7, 10)}


def test_trainings_share_gpus_and_other_stages_do_not_slow_them() -> None:
    pace = on_gpus(1, ["pretrain@"], 2)
    spans = schedule(
        {"pretrain@a": 10, "pretrain@b": 10, "probe@a": 5},
        {"pretrain@a": (), "pretrain@b": (), "probe@a": ()},
        3,
        pace,
    )
    assert spans["probe@a"].seconds == pytest.approx(5)
    assert total(spans) == pytest.approx(20)
    assert pace("pretrain@a", ["pretrain@a"]) == 1
    assert on_gpus(8, ["pretrain@"], 2)("pretrain@a", ["pretrain@a", "pretrain@b"]) == 1


def test_memory_is_that_of_the_stages_that_run_together() -> None:
    spans = {"a": Span(0, 10), "b": Span(5, 15), "c": Span(10, 20)}
    assert highest(spans, {"a": 1, "b": 2, "c": 4}) == 6
    assert highest({}, {}) == 0


def test_the_wall_time_is_shared_out_by_the_work_of_each_kind() -> None:
    seconds = {"pretrain@a": 6.0, "pretrain@b": 2.0, "finetune@a": 4.0, "report": 4.0}
    assert apportioned(seconds, 8.0, ["pretrain", "finetune", "baseline"]) == {"pretrain": 4, "finetune": 2, "": 2}
