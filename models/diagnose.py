"""What is the matter with a training, from the rows of its history alone: docs/explanation/diagnosis.md."""

from collections.abc import Iterator, Sequence
from statistics import fmean, median

from models.diagnosis import Diagnosis, Row, percent, undertrained
from models.method import MethodParams

EARLY = 0.3  # of a run: before, a healthy one may look like any of them

LEAST = 5  # health checks that a judgement needs
RECENT = 3  # health checks whose medians are the figures of now
LATER = 0.3  # of the health checks, from where losses are compared
GROWN = 15.0  # diverged: the weights' length over what it was, where feature_std fell below what it was
RISEN = 0.1  # overfitted: the held-out loss over its least, less one
SPREAD = 0.05  # complete collapse: feature_std
FLAT = 3.0  # dimensional collapse: effective rank
KNOWN = 7.0  # undertrained: consistency, percent; or below the first check's, where that is of an untrained encoder


def diagnose(name: str, params: MethodParams, rows: Sequence[Row]) -> Diagnosis:
    """Of a training of the method `name` with these params: from the rows of its history so far, finished or not."""
    checks = [row for row in rows if "held_out_loss" in row]
    if len(checks) < LEAST:
        return unjudged(name, params, rows, len(checks))
    first, now = checks[0], {key: median(row[key] for row in checks[-RECENT:]) for key in checks[-1]}
    found = [
        *diverged(name, params, first, now),
        *overfitted(name, params, checks),
        *params.faults(checks, now),
        *flattened(name, params, now),
        *unlearnt(name, params, first, now),
    ]
    return next(iter(found), Diagnosis("healthy", consistency(first, now), "nothing to change"))


def unjudged(name: str, params: MethodParams, rows: Sequence[Row], checks: int) -> Diagnosis:
    """Too little was seen for any other name."""
    if sum("weight_norm" in row for row in rows) > checks:
        because = "the val split has too few images"
        change = "give it 16 images or more: raise prepare.val, or add images to the folder's own val split"
        return Diagnosis("not judged", because, change)
    because = f"{checks} health checks are too few to judge by ({LEAST} or more)"
    if rows and rows[-1]["step"] < LEAST:
        return Diagnosis("not judged", because, f"train longer: raise {name}.epochs (now {params.epochs})")
    often = f"lower pretrain.watch to {params.epochs / LEAST:g} epochs or less, or leave it out"
    return Diagnosis("not judged", because, f"{often}, and train again: dvc repro -fs pretrain@{name}")


def diverged(name: str, params: MethodParams, first: Row, now: Row) -> Iterator[Diagnosis]:
    """Large weights alone are no fault: in front of a norm they grow by design, and LARS lets them."""
    grown, before, spread = now["weight_norm"] / first["weight_norm"], first["feature_std"], now["feature_std"]
    if grown > GROWN and spread < before:
        because = (
            f"the weights are {grown:.0f} times as large as at the start and the features lie closer together "
            f"(spread {spread:.2f}, at the start {before:.2f})"
        )
        yield Diagnosis("diverged", because, f"lower {name}.optim.lr (now {params.optim.lr})")


def unlearnt(name: str, params: MethodParams, first: Row, now: Row) -> Iterator[Diagnosis]:
    """Neighbours are not found better than by hardly any encoder, or not better than before training.

    An encoder that starts from weights of its own (init) need not get better.
    """
    start = 0.0 if params.encoder.init else first["consistency"]
    if now["consistency"] < max(KNOWN, start):
        yield undertrained(name, params.epochs, params.optim.lr, consistency(first, now))


def consistency(first: Row, now: Row) -> str:
    """Neighbour consistency now and after the first step, as a clause."""
    then, share = first["consistency"], now["consistency"]
    return (
        f"neighbour consistency is {share:.0f} % (after the first step {then:.0f} %; 0 % is chance, 100 % is perfect)"
    )


def flattened(name: str, params: MethodParams, now: Row) -> Iterator[Diagnosis]:
    """The features of all images are nearly the same, or lie in few dimensions."""
    lower = f"lower {name}.optim.lr (now {params.optim.lr})"
    if now["feature_std"] < SPREAD:
        share = percent(now["feature_std"])
        because = f"the features of all images are nearly the same (their spread is {share} of the largest possible)"
        yield Diagnosis("complete collapse", because, lower)
    if now["effective_rank"] < FLAT:
        because = f"the features of all images lie in {now['effective_rank']:.1f} dimensions"
        yield Diagnosis("dimensional collapse", because, lower)


def overfitted(name: str, params: MethodParams, checks: Sequence[Row]) -> Iterator[Diagnosis]:
    """The loss of held-out images has risen from its least while that in training fell on: means of three checks."""
    checks = checks[int(LATER * len(checks)) :]
    windows = [checks[i : i + RECENT] for i in range(len(checks) - RECENT + 1)]
    held, training = ([fmean(row[key] for row in w) for w in windows] for key in ("held_out_loss", "loss"))
    if not windows:
        return
    least = held.index(min(held))
    risen = held[-1] / held[least] - 1
    if risen > RISEN and training[-1] < training[least]:
        because = (
            f"the loss of held-out images has risen by {percent(risen)} from its least while that in training fell"
        )
        yield Diagnosis(
            "overfitted", because, f"train on more images, or shorter: lower {name}.epochs (now {params.epochs})"
        )
