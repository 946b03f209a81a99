"""Charts, drawn in the colours of the light page; `page.py` exchanges them for the page's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from models.methods import METHODS
from pipelines.evaluation.approach import Approach
from pipelines.project.history import Row
from pipelines.reporting.results import Cells, Results

COLOURS = {  # light and dark, each with a contrast of 4.5 or more on its page
    **{name: method.COLOURS for name, method in METHODS.items()},
    "supervised": ("#7a3e9d", "#cf9bea"),
    "pseudolabel": ("#a3265c", "#f08cb4"),
    "fixmatch": ("#6b5b00", "#d6c04a"),
    "random": ("#5a646e", "#a5afba"),
    "pixels": ("#3b3f45", "#d4d8dd"),
    "ink": ("#1c1f23", "#e8eaed"),
    "rule": ("#dfe2e6", "#343a41"),
}
CLASSES = {  # of the map: the same hues, then four more
    f"class-{i}": pair
    for i, pair in enumerate(
        [
            *(("#0b5cae", "#6cb4f6"), ("#b04a01", "#f5a35d"), ("#0a7356", "#4fc7a1"), ("#a3265d", "#f08cb5")),
            *(("#6b5b01", "#d6c04b"), ("#7a3e9e", "#cf9beb"), ("#00707f", "#57c9d8"), ("#8c3b2e", "#eb9c8e")),
            *(("#4a5a00", "#b3c75a"), ("#4b4ba8", "#a7a7f2")),
        ]
    )
}
MARKERS = {
    **{name: method.MARKER for name, method in METHODS.items()},
    **{"supervised": "D", "pseudolabel": "v", "fixmatch": "P", "random": "x", "pixels": "+"},
}
BASELINES = {"supervised": "supervised", "pseudolabel": "pseudo-labels only", "fixmatch": "FixMatch"}
INK, RULE = COLOURS["ink"][0], COLOURS["rule"][0]
STYLE: Any = {  # matplotlib names every key in a type
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": RULE,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
SIGNALS = {  # what they are called; the first two are looked at first
    "effective_rank": "effective rank of the features",
    "consistency": "neighbours that two views share, % beyond chance",
    "relative_loss": "loss over that of knowing nothing",
    "feature_std": "spread of the features",
    "feature_cosine": "mean cosine of two images",
    "alignment": "distance of two views (alignment)",
    "uniformity": "uniformity of the features",
    "weight_norm": "norm of the weights",
    "kl": "KL of teacher and student",
    "top_1": "top-1 of the pretext task",
}
NO_SIGNAL = {"step", "epoch", "lr", "loss", "held_out_loss", "grad_norm", "images_per_second", "input_wait", "memory"}
POINTS = 400  # of a map


def canvas(width: int, height: int, place: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """An empty chart, so many px wide and high on the page; place: of its axes, as fractions."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        return figure, figure.add_axes(place)


def colour(who: str) -> str:
    return COLOURS[who.partition("-")[0]][0]


def label_efficiency(r: Results) -> dict[str, Figure]:
    """Accuracy against labels a class: `frozen`, and of each method all ways to a classifier on its backbone."""
    cells = r.cells()
    frozen = {a: a.who.replace("random-", "random ") for a in cells if a.how == "linear"}
    figures = {"frozen": curves(r, cells, frozen)}
    for m in r.config.methods:
        names = {Approach(m, "linear"): "linear probe", Approach(m, "finetune"): "fine-tuned"}
        names |= {Approach(f"{m}-pseudolabel", "finetune"): "+ pseudo-labels"}
        names |= {Approach(f"{c}-{r.backbone(m)}", "finetune"): word for c, word in BASELINES.items()}
        if any(a in cells and a.how == "finetune" for a in names):
            figures[m] = curves(r, cells, names)
    return figures


def curves(r: Results, cells: Cells, names: Mapping[Approach, str]) -> Figure:
    """One line an approach, a band of one sd to either side, its name at its end."""
    figure, axes = canvas(400, 290, (0.08, 0.15, 0.57, 0.81))
    shown = {a: points for a, points in cells.items() if a in names}
    ends = []
    for approach, points in shown.items():
        method, _, more = approach.who.partition("-")
        style: Any = "-"
        if approach.pretrained and approach.how == "finetune":
            style = (0, (1, 1.3)) if more else (0, (5, 2))
        at, hue = [r.per_class(n) for n in points], colour(approach.who)
        mean, sd = (np.array([getattr(p, name) for p in points.values()]) for name in ("mean", "sd"))
        axes.fill_between(at, mean - sd, mean + sd, color=hue, alpha=0.13, linewidth=0)
        axes.plot(at, mean, color=hue, linestyle=style, marker=MARKERS[method], markersize=4.5, linewidth=1.8)
        ends.append((at[-1], mean[-1], names[approach], hue))
    shots = [n for n in r.shots if any(n in points for points in shown.values())]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([r.per_class(n) for n in shots]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(shots)
    axes.set_xlabel("labels a class")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    name_ends(axes, ends, 0.068)
    return figure


def name_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], apart: float) -> None:
    """Names of lines beside their right ends, moved `apart` (of the height) where they would cover each other."""
    low, high = axes.get_ylim()
    gap = apart * (high - low)
    ends = sorted(ends, key=lambda end: end[1])
    places = [y for _, y, *_ in ends]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    places[-1] = min(places[-1], high)
    for i in reversed(range(len(places) - 1)):
        places[i] = min(places[i], places[i + 1] - gap)
    for y, (x, end, name, hue) in zip(places, ends, strict=True):
        axes.annotate(
            name, (x, end), (1.07, (y - low) / (high - low)), textcoords="axes fraction", color=hue,
            fontsize=12, verticalalignment="center", annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": hue, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4, "relpos": (0, 0.5)
            },
        )  # fmt: skip
    axes.set_ylim(low, high)


def training(histories: Mapping[str, Sequence[Row]]) -> dict[str, Figure]:
    """The loss of each method, on held-out images too where it was watched; then one chart a signal."""
    figures = {}
    for m, rows in histories.items():
        lines = {"": series(rows, "loss")}
        if held_out := series(rows, "held_out_loss"):
            lines["held out"] = held_out
        figures[f"loss of {m}"] = small(lines, {name: colour(m) for name in lines})
    known = {key for rows in histories.values() for row in rows for key in row} - NO_SIGNAL
    for key in [*(k for k in SIGNALS if k in known), *sorted(known - SIGNALS.keys())]:
        lines = {m: line for m, rows in histories.items() if (line := series(rows, key))}
        figures[SIGNALS.get(key, key.replace("_", " "))] = small(lines, {m: colour(m) for m in lines})
    return figures


def series(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    """(share of the training in percent, value) of the rows that have the key."""
    last = max((row["step"] for row in rows), default=1)
    return [(100 * row["step"] / last, row[key]) for row in rows if key in row]


def small(lines: Mapping[str, list[tuple[float, float]]], hues: Mapping[str, str]) -> Figure:
    figure, axes = canvas(330, 200, (0.13, 0.2, 0.66, 0.75))
    for name, line in lines.items():
        x, y = zip(*line, strict=True)
        dash = "--" if name == "held out" else "-"
        marker = MARKERS.get(name) if len(x) < 30 else None
        axes.plot(x, y, color=hues[name], linewidth=1.6, linestyle=dash, marker=marker, markersize=3.5)
    axes.set_xlabel("% of the training")
    axes.xaxis.set_major_locator(FixedLocator([0, 50, 100]))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if any(lines):
        name_ends(axes, [(*line[-1], name or "training", hues[name]) for name, line in lines.items()], 0.11)
    return figure


def embedding_map(
    features: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str], method: str
) -> Figure:
    """t-SNE (van der Maaten & Hinton, 2008) of features (n, D); classes at their medians; labels are -1 without."""
    some = np.random.default_rng(0).permutation(len(features))[:POINTS]
    x, y = features[some], labels[some]
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)  # cosine, as for the neighbours
    start = "pca" if x.std(axis=0).max() > 1e-4 else "random"  # a collapsed encoder's have no main axes
    tsne = TSNE(perplexity=min(30, (len(x) - 1) / 3), init=start, max_iter=400, random_state=0, n_jobs=1)
    places = tsne.fit_transform(x)
    figure, axes = canvas(330, 330, (0.01, 0.01, 0.98, 0.98))
    axes.axis("off")
    hues = [light for light, _ in CLASSES.values()]
    for c in np.unique(y):
        hue = hues[c % len(hues)] if c >= 0 else COLOURS[method][0]
        axes.plot(*places[y == c].T, "o", color=hue, markersize=3, markeredgewidth=0, alpha=0.6)
    for c in np.unique(y[y >= 0]):
        where = np.median(places[y == c], axis=0)
        style = {
            "fontsize": 12,
            "weight": "bold",
            "color": hues[c % len(hues)],
            "gid": f"halo-{c}",
            "parse_math": False,
        }
        axes.text(where[0], where[1], short(classes[c]), ha="center", va="center", **style)
    return figure


def short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"
