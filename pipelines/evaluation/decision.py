"""Whether a claim about a difference holds: decided by its interval and the smallest difference that matters."""

from collections.abc import Iterable
from enum import StrEnum

from pipelines.evaluation.difference import SEEDS, Difference, margin

MOST_SEEDS = 1000


class Decision(StrEnum):
    HOLDS = "HOLDS"
    FAILS = "DOES NOT HOLD"
    OPEN = "UNDERPOWERED"


def decide(d: Difference, smallest: float) -> Decision:
    """HOLDS above the smallest difference that matters, DOES NOT HOLD below it, else UNDERPOWERED."""
    if d.seeds < SEEDS or d.low <= smallest <= d.high:
        return Decision.OPEN
    return Decision.HOLDS if d.points > smallest else Decision.FAILS


def seeds_needed(d: Difference, smallest: float) -> int | None:
    """How many seeds would decide, if the points and the standard deviation over seeds stay as they are.

    None where not even 1,000 would: the noise of the test images is too large, or the difference is at the smallest
    one that matters. From one seed, whose noise is not known, it is 3 at least.
    """
    away, spread = abs(d.points - smallest), d.seed_error * d.seeds**0.5
    for n in range(SEEDS, MOST_SEEDS + 1):
        if margin(spread / n**0.5, d.image_error, n, d.level) < away:
            return n
    return None


def together(decisions: Iterable[Decision]) -> Decision:
    """Of a claim with several parts: all must hold, and one that does not hold decides."""
    found = set(decisions)
    if Decision.FAILS in found:
        return Decision.FAILS
    return Decision.HOLDS if found == {Decision.HOLDS} else Decision.OPEN
