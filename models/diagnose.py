"""What is wrong with a training run, from the rows of its history alone: docs/explanation/diagnosis.md."""

from collections.abc import Iterator, Sequence
from statistics import fmean, median

from models.diagnosis import Diagnosis, Row, percent, undertrained
from models.method import MethodParams

EARLY = 0.3  # share of a run: before it, a healthy run may look like any broken one

LEAST = 5  # health checks that a judgement needs
RECENT = 3  # health checks whose medians are the figures of now
LATER = 0.3  # of the health checks, from where losses are compared
GROWN = 15.0  # diverged: the weights' length over what it was, where feature_std fell below what it was
RISEN = 0.1  # overfitted: the held-out loss over its least, less one
SPREAD = 0.05  # complete collapse: feature_std
FLAT = 3.0  # dimensional collapse: effective rank
KNOWN = 7.0  # undertrained: consistency, percent; or below the first check's, where that is of an untrained encoder


def diagnose(name: str, params: MethodParams, rows: Sequence[Row]) -> Diagnosis:
    """Judge a training run of the method `name` by the rows of its history so far, finished or not."""
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
    return next(iter(found), Diagnosis("healthy", consistency(now), "No change needed."))


def unjudged(name: str, params: MethodParams, rows: Sequence[Row], checks: int) -> Diagnosis:
    """Too little was measured for any other name."""
    if sum("weight_norm" in row for row in rows) > checks:
        because = "The validation split has too few images."
        change = "Give it 16 images or more: raise prepare.val, or add images to the folder's own val split."
        return Diagnosis("not judged", because, change)
    because = f"{counted(checks)} too few to judge by: it takes {LEAST}."
    if rows and rows[-1]["step"] < LEAST:
        return Diagnosis("not judged", because, f"Train longer: raise {name}.epochs (now {params.epochs}).")
    often = f"Check more often: lower pretrain.watch to {params.epochs / LEAST:g} epochs or less, or leave it out."
    return Diagnosis("not judged", because, f"{often} Then train again: dvc repro -fs pretrain@{name}")


def counted(checks: int) -> str:
    """`4 health checks are`."""
    return "1 health check is" if checks == 1 else f"{checks} health checks are"


def diverged(name: str, params: MethodParams, first: Row, now: Row) -> Iterator[Diagnosis]:
    """Large weights alone are no fault: in front of a norm they grow by design, and LARS lets them."""
    grown, before, spread = now["weight_norm"] / first["weight_norm"], first["feature_std"], now["feature_std"]
    if grown > GROWN and spread < before:
        because = (
            f"The weights are {grown:.0f} times as large as at the start. "
            f"The features moved closer together: their spread fell from {before:.2f} to {spread:.2f}."
        )
        yield Diagnosis("diverged", because, f"Lower {name}.optim.lr (now {params.optim.lr}).")


def unlearnt(name: str, params: MethodParams, first: Row, now: Row) -> Iterator[Diagnosis]:
    """Neighbours are not found better than by hardly any encoder, or not better than before training.

    An encoder that starts from weights of its own (init) need not get better.
    """
    start = 0.0 if params.encoder.init else first["consistency"]
    if now["consistency"] < max(KNOWN, start):
        because = f"{consistency(now)} After the first step it was {first['consistency']:.0f} %."
        yield undertrained(name, params.epochs, params.optim.lr, because)


def consistency(now: Row) -> str:
    """Neighbour consistency in a sentence."""
    return f"Neighbour consistency is {now['consistency']:.0f} % (0 % is chance, 100 % is perfect)."


def flattened(name: str, params: MethodParams, now: Row) -> Iterator[Diagnosis]:
    """The features of all images are nearly the same, or lie in few dimensions."""
    lower = f"Lower {name}.optim.lr (now {params.optim.lr})."
    if now["feature_std"] < SPREAD:
        share = percent(now["feature_std"])
        because = f"The features of all images are nearly the same: their spread is {share} of the largest possible."
        yield Diagnosis("complete collapse", because, lower)
    if now["effective_rank"] < FLAT:
        because = f"The features use only {now['effective_rank']:.1f} dimensions."
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
            f"The loss on held-out images rose by {percent(risen)} from its lowest value, "
            "while the training loss kept falling."
        )
        change = f"Train on more images or for fewer epochs: lower {name}.epochs (now {params.epochs})."
        yield Diagnosis("overfitted", because, change)
