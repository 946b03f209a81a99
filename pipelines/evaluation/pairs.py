"""The difference of two approaches from their scores, and what stays of several differences after a correction."""

from collections.abc import Sequence

from pipelines.evaluation.difference import LEVEL, Difference, of_answers
from pipelines.evaluation.scores import Score, Split, answers


def difference(ours: Sequence[Score], theirs: Sequence[Score], on: Split = "test") -> Difference:
    """Paired by seed, over the seeds and the label samples that both have.

    What has one seed, such as raw pixels, is compared with every seed.
    """
    samples, seeds = ({s.sample for s in of} for of in (ours, theirs)), [{s.seed for s in of} for of in (ours, theirs)]
    common = set.intersection(*samples)
    shared = set.intersection(*seeds) if all(len(of) > 1 for of in seeds) else set.union(*seeds)
    return of_answers(
        *(answers([s for s in of if s.sample in common and s.seed in shared], on) for of in (ours, theirs))
    )


def corrected(found: Sequence[Difference]) -> list[Difference]:
    """The same by Holm's step-down test, which keeps the chance of any false alarm among all of them at 5 %.

    Each has the level of the step that decides on it, so that its interval says the same as its outcome.
    """
    result, level = list(found), None
    for step, place in enumerate(sorted(range(len(found)), key=lambda i: found[i].p_value)):
        d = found[place].at_level(level or 1 - (1 - LEVEL) / (len(found) - step))
        if not d.outcome:
            level = d.level  # the test stops here: no later one is called different
        result[place] = d
    return result
