"""Studies of every kind with made-up results."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from pipelines.evaluation import decision, difference
from pipelines.evaluation.decision import Decision
from pipelines.studies.result import Comparison, Judged, Result
from pipelines.studies.study import Claim, Level, Paper, Scale, Study

RATIOS = (10, 25, 40, 50, 60, 75, 80, 90, 95)
OPERATIONS = ("crop", "cutout", "colour", "Sobel", "noise", "blur", "rotation")
COMMON: dict[str, Any] = {
    "scales": {
        "quick": Scale("digits", 1, {"mae.epochs": 20}),
        "small": Scale("cifar10-small", 3),
        "gpu": Scale("cifar10", 3),
    }
}
STUDIES = {
    "S1": Study(
        title="Which augmentations belong together",
        question="Which augmentations do my images need?",
        method="simclr",
        source="Chen et al., 2020",
        factor="augmentation",
        metrics=("linear_all",),
        levels={
            **{a: Level() for a in OPERATIONS},
            **{f"{a} + {b}": Level() for i, a in enumerate(OPERATIONS) for b in OPERATIONS[i + 1 :]},
        },
        claims=(
            Claim(
                "Crop and colour together are better than each alone.",
                "figure 5",
                "crop + colour",
                ("crop", "colour"),
                1.0,
            ),
        ),
        chart="matrix",
        paper=Paper(
            "ResNet-50, ImageNet-1K; linear probe, top-1 accuracy in %",
            {"linear_all": {"crop": 33.1, "colour": 18.8, "crop + colour": 56.3, "blur": 2.6, "crop + blur": 35.1}},
        ),
        **COMMON,
    ),
    "S2": Study(
        title="Representation or projection",
        question="Which layer should I use, and how deep should the projection head be?",
        method="simclr",
        source="Chen et al., 2020",
        factor="head",
        metrics=("linear_all", "seconds"),
        levels={
            "no head": Level(),
            "linear head": Level(),
            "head of two layers, as in the paper": Level(),
            "head of three layers": Level(),
        },
        claims=(
            Claim(
                "A head of two layers is better than none.",
                "figure 8",
                "head of two layers, as in the paper",
                ("no head",),
                1.0,
            ),
            Claim(
                "It trains no slower.", "section 4.2", "no head", ("head of three layers",), 5.0, "seconds", lower=True
            ),
        ),
        chart="bars",
        paper=Paper(
            "ResNet-50, ImageNet-1K; linear probe, top-1 accuracy in %",
            {"linear_all": {"no head": 54.5, "linear head": 60.6, "head of two layers, as in the paper": 64.2}},
        ),
        **COMMON,
    ),
    "M1": Study(
        title="How much to mask",
        question="How much of an image should MAE mask?",
        method="mae",
        source="He et al., 2022",
        factor="mask ratio, %",
        metrics=("linear_all", "finetune_all"),
        levels={f"{r} %": Level({"mae.mask_ratio": r / 100}, x=r) for r in RATIOS},
        claims=(
            Claim("Masking 75 % is better than masking little.", "figure 5", "75 %", ("10 %", "25 %"), 1.0),
            Claim("Too much masking hurts.", "figure 5", "75 %", ("95 %",), 1.0),
        ),
        paper=Paper(
            "ViT-L, ImageNet-1K, 800 epochs; top-1 accuracy in %",
            {
                "linear_all": dict(
                    zip([f"{r} %" for r in RATIOS[:-1]], [54.6, 58.9, 61.7, 67.0, 69.9, 73.5, 73.4, 66.1], strict=True)
                ),
                "finetune_all": dict(
                    zip([f"{r} %" for r in RATIOS[:-1]], [83.2, 83.4, 83.4, 84.7, 84.9, 84.9, 84.5, 83.0], strict=True)
                ),
            },
        ),
        **COMMON,
    ),
    "D1": Study(
        title="What keeps DINO from collapsing",
        question="Do I need centring and sharpening?",
        method="dino",
        source="Caron et al., 2021",
        factor="variant",
        metrics=("knn_all",),
        levels={name: Level() for name in ("centring and sharpening", "no centring", "no sharpening", "neither")},
        claims=(
            Claim("Without centring DINO collapses.", "figure 7", "centring and sharpening", ("no centring",), 10.0),
        ),
        chart="bars",
        curves=("teacher_entropy", "kl"),
        **COMMON,
    ),
    "D2": Study(
        title="Which teacher",
        question="Which teacher should DINO learn from?",
        method="dino",
        source="Caron et al., 2021",
        factor="teacher",
        metrics=("knn_all",),
        levels={name: Level() for name in ("momentum", "previous epoch", "copy of the student")},
        claims=(
            Claim(
                "A momentum teacher is better than the previous epoch.", "table 7", "momentum", ("previous epoch",), 1.0
            ),
        ),
        chart="bars",
        paper=Paper(
            "ViT-S/16, ImageNet-1K; kNN, top-1 accuracy in %",
            {"knn_all": {"momentum": 72.8, "previous epoch": 66.6, "copy of the student": 0.1}},
        ),
        **COMMON,
    ),
    "X1": Study(
        title="Accuracy against labels",
        question="How many labels does each way need?",
        method="simclr",
        source="Chen et al., 2020",
        factor="labels per class",
        metrics=("finetune_5",),
        levels={
            f"{way}, {n} labels": Level(x=n, line=way)
            for way in ("SimCLR", "MAE", "DINO", "FixMatch", "pseudo-labels", "supervised training")
            for n in (1, 5, 10, 50, 500, 5000)
        },
        claims=(
            Claim(
                "With 10 labels per class SimCLR is better than supervised training.",
                "table 7",
                "SimCLR, 10 labels",
                ("supervised training, 10 labels",),
                1.0,
            ),
        ),
        log_x=True,
        paper=Paper(
            "ResNet-50, ImageNet-1K; 1 % and 10 % of the labels are about 13 and 128 per class; top-1 accuracy in %",
            {
                "finetune_10": {
                    "SimCLR, 10 labels": 48.3,
                    "SimCLR, 500 labels": 65.6,
                    "supervised training, 10 labels": 25.4,
                    "supervised training, 500 labels": 56.4,
                }
            },
        ),
        **COMMON,
    ),
}


def judged(c: Claim, metric: str, better: Sequence[float], others: Sequence[Sequence[float]]) -> Judged:
    """A claim as the decision of its parts would make it."""
    parts = []
    for worse, of in zip(c.than, others, strict=True):
        ours, theirs = (of, better) if c.lower else (better, of)
        d = difference.of_figures(ours, theirs)
        decided = str(decision.decide(d, c.by))
        parts.append(Comparison(worse, float(np.mean(better)), float(np.mean(of)), d.low, d.high, decided))
    verdict = decision.together([Decision(p.decision) for p in parts])
    needed = "About 11 seeds would decide it, if the difference stays." if verdict is Decision.OPEN else ""
    return Judged(c.claim, c.source, metric, c.better, c.by, str(verdict), needed, tuple(parts))


def result(name: str, scale: str = "small", seeds: int = 3, without: Sequence[str] = (), **more: Any) -> Result:
    """Of a study; the levels in `without` were not run."""
    of, rng = STUDIES[name], np.random.default_rng(sum(map(ord, name)))
    figures = {}
    for metric in of.metrics:
        middle, spread = (140.0, 6.0) if metric == "seconds" else (62.0, 0.5)
        figures[metric] = {
            level: list(
                map(float, middle + 3 * rng.normal() + 2 * np.log(setting.x or 1) + spread * rng.normal(size=seeds))
            )
            for level, setting in of.levels.items()
            if level not in without
        }
    claims = []
    for c in of.claims:
        known = figures[metric := c.metric or of.metrics[0]]
        if {c.better, *c.than} <= known.keys():
            claims.append(judged(c, metric, known[c.better], [known[worse] for worse in c.than]))
        else:
            claims.append(Judged(c.claim, c.source, metric, c.better, c.by, "not run", "", ()))
    steps = range(0, 101, 4)
    curves = {
        signal: {level: [(s, 1 - (s / 100) ** (i + 1) * 0.3 * i) for s in steps] for i, level in enumerate(of.levels)}
        for signal in of.curves
    }
    command = f"foundry study {name} --scale {scale}"
    best = max(figures[of.metrics[0]], key=lambda level: figures[of.metrics[0]][level][0])
    made: dict[str, Any] = {
        **{"name": name, "scale": scale, "dataset": "cifar10", "seeds": seeds, "command": command, "commit": "f2de63c"},
        **{"machine": "2 CPU cores", "seconds": 5130.0, "answer": f"Best here: {best} (linear probe 68.1 ± 0.9 %)."},
        **{"figures": figures, "claims": tuple(claims), "curves": curves, "pictures": {}},
    }
    return Result(**made | more)


def png() -> str:
    """A picture in Base64."""
    file = io.BytesIO()
    Image.fromarray(np.tile(np.arange(0, 240, 2, dtype=np.uint8), (60, 4))).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()
