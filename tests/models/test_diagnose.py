"""What trainings are called: recorded ones, healthy and broken, and figures made up where none was broken so."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest

from benchmarks.studies.diagnose import CASES, params, recorded
from models.diagnose import EARLY, LEAST, diagnose
from models.diagnosis import HOPELESS, Row

RECORDS = recorded()
BROKEN = [run for run in RECORDS if CASES[run[0]].name != "healthy"]
# A healthy run that was cut short may be called undertrained, and nothing worse; a short look is no whole training.
HEALTHY = [run for run in RECORDS if CASES[run[0]].name == "healthy"]


def name_of(run: tuple[str, int, int], looks: Sequence[Row]) -> str:
    return diagnose(run[0].split()[0], params(run[0]), looks).name


@pytest.mark.parametrize("run", BROKEN, ids=str)
def test_a_broken_training_is_named_rightly(run: tuple[str, int, int]) -> None:
    assert name_of(run, RECORDS[run]) == CASES[run[0]].name


@pytest.mark.parametrize("run", HEALTHY, ids=str)
def test_a_healthy_training_is_named_healthy_and_is_never_stopped(run: tuple[str, int, int]) -> None:
    case, _, epochs = run
    enough = epochs >= 0.5 * params(case).epochs
    assert name_of(run, RECORDS[run]) in ({"healthy"} if enough else {"healthy", "undertrained"})
    for i, look in enumerate(RECORDS[run]):
        if look["epoch"] >= EARLY * epochs:
            assert name_of(run, RECORDS[run][: i + 1]) not in HOPELESS


def test_there_are_trainings_of_every_case() -> None:
    assert {case for case, _, _ in RECORDS} == set(CASES)


@pytest.mark.parametrize("run", BROKEN, ids=str)
def test_what_to_change_is_a_key_with_its_value_now(run: tuple[str, int, int]) -> None:
    name, made = run[0].split()[0], params(run[0])
    found = diagnose(name, made, RECORDS[run])
    change = found.change
    assert re.fullmatch(r"[A-Z].*\.", found.because)
    assert re.fullmatch(r"[A-Z].*\.", change)
    named = re.findall(r"(\w+)\.([\w.]+) \(now ([^;)]+)", change)
    assert named, change
    for method, key, value in named:
        now: Any = reduce(getattr, key.split("."), made)
        assert (method, value) == (name, str(list(now) if isinstance(now, tuple) else now))


def steady(name: str, figures: dict[str, float], looks: int = 10) -> list[Row]:
    """The last look of a healthy training over and over, with other figures."""
    last = RECORDS[max(run for run in HEALTHY if run[0] == f"{name} healthy")][-1]
    return [dict(last) | figures for _ in range(looks)]


@pytest.mark.parametrize("name", ["simclr", "mae", "dino"])
def test_one_that_starts_from_a_good_encoder_need_not_move(name: str) -> None:
    figures = {"consistency": 60.0} | ({"gain": 2.0} if name == "dino" else {"relative_loss": 0.7})
    found = diagnose(name, params(f"{name} healthy"), steady(name, figures))
    assert (found.name, found.change) == ("healthy", "No change needed.")
    assert "Neighbour consistency is 60 %" in found.because


def risen(name: str, key: str, factor: float) -> list[Row]:
    """The last look of a healthy training over and over, but at the first look the figure was 1 / factor of it."""
    first, *rest = steady(name, {})
    return [dict(first) | {key: first[key] / factor}, *rest]


@pytest.mark.parametrize("name", ["simclr", "mae", "dino"])
def test_weights_that_grow_are_no_fault_while_the_features_are_as_good(name: str) -> None:
    """In front of a norm their length has no effect, and LARS lets them grow."""
    rows, made = risen(name, "weight_norm", 30.0), params(f"{name} healthy")
    assert diagnose(name, made, rows).name == "healthy"
    closer = [rows[0], *(dict(row) | {"feature_std": 0.7 * row["feature_std"]} for row in rows[1:])]
    found = diagnose(name, made, closer)
    assert (found.name, "The weights are 30 times as large" in found.because) == ("diverged", True)


@pytest.mark.parametrize("name", ["simclr", "mae", "dino"])
def test_neighbours_that_are_found_worse_than_before_training_are_undertrained(name: str) -> None:
    now = 8.0  # more than any untrained encoder has on digits
    first, *rest = steady(name, {"consistency": now})
    made = params(f"{name} healthy")
    rows = [dict(first) | {"consistency": 9.0}, *rest]
    found = diagnose(name, made, rows)
    assert (found.name, "8 % (0 % is chance, 100 % is perfect). After the first step it was 9 %." in found.because) == (
        "undertrained",
        True,
    )
    assert diagnose(name, made, [dict(first) | {"consistency": 2.0}, *rest]).name == "healthy"
    encoder: Any = replace(made.encoder, init="weights.pt")
    assert diagnose(name, replace(made, encoder=encoder), rows).name == "healthy"


@pytest.mark.parametrize("checks", [0, 1, LEAST - 1])
def test_few_health_checks_are_not_judged(checks: int) -> None:
    rows: list[Row] = [*steady("mae", {"feature_std": 0.0}, checks), {"step": 4000, "loss": 1.0}]
    found = diagnose("mae", params("mae healthy"), rows)
    assert found.name == "not judged"
    assert f"{checks} health check" in found.because
    assert "pretrain.watch to 50 epochs or less" in found.change


def test_a_training_of_hardly_any_steps_is_not_judged() -> None:
    rows = [dict(row) | {"step": step} for step, row in enumerate(steady("mae", {}, 3), 1)]
    found = diagnose("mae", params("mae healthy"), rows)
    assert (found.name, found.change) == ("not judged", "Train longer: raise mae.epochs (now 250).")


def test_a_training_with_hardly_any_images_to_look_at_is_not_judged() -> None:
    seen = {"step", "epoch", "loss", "weight_norm"}
    rows = [{key: row[key] for key in seen} for row in steady("simclr", {}, 25)]
    found = diagnose("simclr", params("simclr healthy"), rows)
    assert (found.name, "prepare.val" in found.change) == ("not judged", True)


@pytest.mark.parametrize(
    ("name", "figures", "called", "because"),
    [
        ("simclr", {"feature_std": 0.01}, "complete collapse", "1.0 %"),
        ("mae", {"effective_rank": 1.8}, "dimensional collapse", "1.8 dimensions"),
        ("simclr", {"embedding_uniformity": -0.01}, "complete collapse", "-0.01"),
        ("simclr", {"relative_loss": 0.99, "embedding_alignment": 0.1}, "uniform collapse", "99.0 %"),
        ("simclr", {"consistency": 3.0}, "undertrained", "3 %"),
        ("dino", {"gain": 0.3, "kl": 1.8}, "undertrained", "KL divergence is 1.8 nats"),
        ("dino", {"gain": 0.3, "kl": 0.2}, "dimensional collapse", "0.30 nats"),
        ("dino", {"gain": 0.7, "held_out_loss": 0.5, "mean_teacher_entropy": 0.25}, "dimensional collapse", "3.3 of"),
        ("mae", {"relative_loss": 0.99, "feature_cosine": 0.98}, "complete collapse", "99.0 %"),
    ],
)  # fmt: skip
def test_figures_that_no_recorded_training_had(name: str, figures: dict[str, float], called: str, because: str) -> None:
    found = diagnose(name, params(f"{name} healthy"), steady(name, figures))
    assert (found.name, because in found.because) == (called, True), found


def losses(held: Sequence[float], training: Sequence[float]) -> list[Row]:
    rows = steady("mae", {"relative_loss": 0.5, "consistency": 20.0}, len(held))
    return [dict(r) | {"held_out_loss": h, "loss": t} for r, h, t in zip(rows, held, training, strict=True)]


def test_overfitted_is_a_held_out_loss_that_rises_while_the_other_falls() -> None:
    made = params("mae healthy")
    down = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3]
    up = [1.0, 0.9, 0.8, 0.75, 0.74, 0.75, 0.8, 0.85, 0.9, 0.95]
    found = diagnose("mae", made, losses(up, down))
    assert found.name == "overfitted"
    assert re.search(r"rose by 2\d\.\d %", found.because)
    assert diagnose("mae", made, losses(down, down)).name == "healthy"
    assert diagnose("mae", made, losses(up, up)).name == "healthy"  # a harder task, not a gap
    assert diagnose("mae", made, losses([*down[:5], *[0.62] * 5], down)).name == "healthy"  # within noise
    early = [0.5, 0.45, 0.4, *([1.0] * 7)]  # DINO's rises at first
    assert diagnose("mae", made, losses(early, down)).name == "healthy"
