"""What is the matter with a training, from the rows of its history alone. docs/diagnosis.md: what was measured."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from models.methods import MethodParams
from models.methods.dino import DINOParams
from models.methods.mae import MAEParams
from models.methods.simclr import SimCLRParams

Row = Mapping[str, float]
Name = Literal["healthy", "dimensional collapse", "complete collapse", "uniform collapse", "undertrained", "overfitted",
               "diverged", "trivial task", "not judged"]  # fmt: skip
HOPELESS = {"complete collapse", "uniform collapse", "diverged"}  # more steps do not mend it; a few dimensions, they do
EARLY = 0.3  # of a run: before, a healthy one may look like any of them

LEAST = 5  # looks that a judgement needs
RECENT = 3  # looks whose medians are the figures of now
LATER = 0.3  # of the looks, from where losses are compared
GROWN = 15.0  # diverged: the weights' length over what it was, where feature_std fell below what it was
RISEN = 0.1  # overfitted: the held-out loss over its least, less one
SPREAD = 0.05  # complete collapse: feature_std
FLAT = 3.0  # dimensional collapse: effective rank
KNOWN = 7.0  # undertrained: consistency, percent; or below the first look's, where that is of an untrained encoder
SAME = 0.98, 0.01  # trivial task: top-1 above, the embedding's alignment below
POINT = -0.5  # complete collapse: uniformity of SimCLR's embedding
EVEN = 0.98  # SimCLR's loss over ln(2N - 1): uniform collapse where τ allows no less or views lie together, else
# undertrained
MASKED = 0.25  # trivial task: MAE's masked share
MEAN_IMAGE, POINTED = 0.9, 0.97  # MAE's loss over the mean image's: undertrained, collapse where cosines are above
UNIFORM = 0.95  # uniform collapse: DINO's teacher's entropy over ln K
ONE = 0.2  # complete collapse: entropy of its mean over the most it can be
FEW = 0.5, 1.2  # dimensional collapse: the same below, and the gain, nats
GAIN, BEHIND, RISING = 0.5, 1.2, 0.05  # nats, DINO's: dimensional collapse, but undertrained where KL is above, or
# the gain has risen by so much since the middle of the run


@dataclass(frozen=True)
class Diagnosis:
    """because: the figure that shows it; change: what to do, with the key of params.yaml and its value now."""

    name: Name
    because: str
    change: str

    def __str__(self) -> str:
        return f"{self.name}: {self.because}; {self.change}"


def diagnose(name: str, params: MethodParams, rows: Sequence[Row]) -> Diagnosis:
    """Of a training of the method `name` with these params: from the rows of its history so far, finished or not."""
    looks = [row for row in rows if "held_out_loss" in row]
    if len(looks) < LEAST:
        return unjudged(name, params, rows, len(looks))
    first, now = looks[0], {key: median(row[key] for row in looks[-RECENT:]) for key in looks[-1]}
    found = [
        *diverged(name, params, first, now),
        *overfitted(name, params, looks),
        *own(params, looks, now),
        *flattened(name, params, now),
        *unlearnt(name, params, first, now),
    ]
    return next(iter(found), Diagnosis("healthy", consistency(first, now), "nothing to change"))


def unjudged(name: str, params: MethodParams, rows: Sequence[Row], looks: int) -> Diagnosis:
    """Too little was seen for any other name."""
    if sum("weight_norm" in row for row in rows) > looks:
        because = "the val split has too few images to look at"
        change = "give it 16 images or more: raise prepare.val, or add images to the folder's own val split"
        return Diagnosis("not judged", because, change)
    because = f"{looks} looks at held-out images are too few to judge by ({LEAST} or more)"
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
        yield slow(name, params, consistency(first, now))


def consistency(first: Row, now: Row) -> str:
    then, share = first["consistency"], now["consistency"]
    return (
        f"neighbour consistency is {share:.0f} % (after the first step {then:.0f} %; 0 % is chance, 100 % is perfect)"
    )


def own(params: MethodParams, looks: Sequence[Row], now: Row) -> Iterator[Diagnosis]:
    """What only this method suffers from."""
    match params:
        case SimCLRParams():
            yield from simclr(params, now)
        case MAEParams():
            yield from mae(params, now)
        case DINOParams():
            yield from dino(params, looks, now)


def simclr(p: SimCLRParams, now: Row) -> Iterator[Diagnosis]:
    if now["top_1"] > SAME[0] and now["embedding_alignment"] < SAME[1]:
        because = f"the two views of an image are the same: {percent(now['top_1'])} are told from all others"
        change = f"augment more: lower simclr.area (now {list(p.area)}), raise simclr.strength (now {p.strength})"
        yield Diagnosis("trivial task", because, change)
    if now["embedding_uniformity"] > POINT:
        because = (
            f"all embeddings lie in one place: their uniformity is {now['embedding_uniformity']:.2f}, which could be "
            f"{8 / p.head_dim - 4:.2f}"
        )
        yield Diagnosis("complete collapse", because, f"lower simclr.optim.lr (now {p.optim.lr})")
    if now["relative_loss"] > EVEN:
        because = (
            f"every view seems as likely as the right one: the loss is {percent(now['relative_loss'])} of a guess's"
        )
        least = 1 - now["relative_loss"] / now["held_out_loss"] / p.temperature  # of a guess's ln(2N - 1), at this τ
        if least > EVEN or now["embedding_alignment"] < 1:
            yield Diagnosis("uniform collapse", because, f"lower simclr.temperature (now {p.temperature}; 0.1 to 0.5)")
        else:
            yield slow("simclr", p, because)


def mae(p: MAEParams, now: Row) -> Iterator[Diagnosis]:
    if p.mask_ratio < MASKED:
        because = f"only {percent(p.mask_ratio)} of an image is masked, which what lies beside it gives away"
        yield Diagnosis("trivial task", because, f"raise mae.mask_ratio (now {p.mask_ratio}; 0.75)")
    if now["relative_loss"] > MEAN_IMAGE:
        because = f"the mean image is as good a reconstruction: the loss is {percent(now['relative_loss'])} of its"
        if now["feature_cosine"] > POINTED:
            yield Diagnosis("complete collapse", because, f"lower mae.optim.lr (now {p.optim.lr})")
        else:
            yield slow("mae", p, because)


def dino(p: DINOParams, looks: Sequence[Row], now: Row) -> Iterator[Diagnosis]:
    steadier = f"raise dino.momentum (now {p.momentum}; 0.9 to 0.999)"
    sharpness = f"dino.teacher_temperature (now {p.teacher_temperature})"
    if now["teacher_entropy"] > UNIFORM:
        share = f"{percent(now['teacher_entropy'])} of ln {p.head_dim}"
        because = f"the teacher spreads its output evenly: its entropy is {share}"
        change = f"lower {sharpness}, well below dino.student_temperature ({p.student_temperature})"
        yield Diagnosis("uniform collapse", because, change)
    if now["mean_teacher_entropy"] < ONE:
        share = f"{percent(now['mean_teacher_entropy'])} of what it can be"
        because = f"the teacher has the same output for nearly every image: the entropy of its mean is {share}"
        lower = f"lower dino.center_momentum (now {p.center_momentum}; 0.9)"
        yield Diagnosis("complete collapse", because, lower if p.center_momentum > 0.9 else f"raise {sharpness}")
    elif now["mean_teacher_entropy"] < FEW[0] and now["gain"] < FEW[1]:
        used = math.exp(now["gain"] + now["held_out_loss"])  # of the entropy of the mean teacher
        because = f"the teacher uses {used:.1f} of its {p.head_dim} outputs (its gain is {now['gain']:.2f} nats)"
        yield Diagnosis("dimensional collapse", because, steadier)
    if now["gain"] < GAIN:
        kinds = math.exp(max(0.0, now["gain"]))
        because = f"the teacher's output tells {kinds:.1f} kinds of image apart (its gain is {now['gain']:.2f} nats)"
        if now["kl"] > BEHIND:
            yield slow("dino", p, f"the student does not follow the teacher: their KL is {now['kl']:.1f} nats")
        elif p.momentum >= 0.5 and now["gain"] > looks[len(looks) // 2]["gain"] + RISING:
            yield slow("dino", p, because)
        else:
            yield Diagnosis("dimensional collapse", because, steadier)


def flattened(name: str, params: MethodParams, now: Row) -> Iterator[Diagnosis]:
    lower = f"lower {name}.optim.lr (now {params.optim.lr})"
    if now["feature_std"] < SPREAD:
        because = f"all images have the same features but for {percent(now['feature_std'])} of the room"
        yield Diagnosis("complete collapse", because, lower)
    if now["effective_rank"] < FLAT:
        because = f"the features of all images lie in {now['effective_rank']:.1f} dimensions"
        yield Diagnosis("dimensional collapse", because, lower)


def overfitted(name: str, params: MethodParams, looks: Sequence[Row]) -> Iterator[Diagnosis]:
    """The loss of held-out images has risen from its least while that in training fell on: means of three looks."""
    looks = looks[int(LATER * len(looks)) :]
    windows = [looks[i : i + RECENT] for i in range(len(looks) - RECENT + 1)]
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


def slow(name: str, params: MethodParams, because: str) -> Diagnosis:
    change = f"train longer: raise {name}.epochs (now {params.epochs}), or {name}.optim.lr (now {params.optim.lr})"
    return Diagnosis("undertrained", because, change)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
