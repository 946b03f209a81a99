"""Charts, drawn in the colours of the light page; `page.py` exchanges them for the page's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from models.methods import METHODS
from pipelines.evaluation.approach import title
from pipelines.evaluation.words import capital
from pipelines.project.history import Row

COLOURS = {  # light and dark, each with a contrast of 4.5 or more on its page
    **{name: method.COLOURS for name, method in METHODS.items()},
    "supervised": ("#7a3e9d", "#cf9bea"),
    "pseudolabel": ("#a3265c", "#f08cb4"),
    "fixmatch": ("#6b5b00", "#d6c04a"),
    "random": ("#5a646e", "#a5afba"),
    "pixels": ("#3b3f45", "#d4d8dd"),
    "initial": ("#00707e", "#57c9d7"),
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
    **{"supervised": "D", "pseudolabel": "v", "fixmatch": "P", "random": "x", "pixels": "+", "initial": "*"},
}
TRAINING, HELD_OUT = "training", "held-out"  # images whose loss is drawn
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
SIGNALS = {  # what they are called; the page shows the first two before the others
    "effective_rank": "effective rank of the features",
    "consistency": "neighbour consistency, % (0 is chance)",
    "relative_loss": "loss relative to knowing nothing",
    "feature_std": "spread of the features",
    "feature_cosine": "mean cosine of two images",
    "alignment": "distance between two views (alignment)",
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
    for y, (x, end, text, hue) in zip(places, ends, strict=True):
        axes.annotate(
            text, (x, end), (1.07, (y - low) / (high - low)), textcoords="axes fraction", color=hue,
            fontsize=12, verticalalignment="center", annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": hue, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4, "relpos": (0, 0.5)
            },
        )  # fmt: skip
    axes.set_ylim(low, high)


def training(histories: Mapping[str, Sequence[Row]]) -> dict[str, Figure]:
    """The loss of each method, on held-out images too where it was measured; then one chart per signal."""
    figures = {}
    for m, rows in histories.items():
        lines = {TRAINING: series(rows, "loss")}
        if held_out := series(rows, "held_out_loss"):
            lines[HELD_OUT] = held_out
        figures[loss_of(m)] = small(lines, {line: colour(m) for line in lines})
    known = {key for rows in histories.values() for row in rows for key in row} - NO_SIGNAL
    for key in [*(k for k in SIGNALS if k in known), *sorted(known - SIGNALS.keys())]:
        lines = {m: line for m, rows in histories.items() if (line := series(rows, key))}
        figures[capital(SIGNALS.get(key, key.replace("_", " ")))] = small(lines, {m: colour(m) for m in lines})
    return figures


def loss_of(method: str) -> str:
    """The title of the chart of its loss."""
    return f"Loss of {title(method)}"


def series(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    """(percent of the training run, value) of the rows that have the key."""
    last = max((row["step"] for row in rows), default=1)
    return [(100 * row["step"] / last, row[key]) for row in rows if key in row]


def small(lines: Mapping[str, list[tuple[float, float]]], hues: Mapping[str, str]) -> Figure:
    figure, axes = canvas(330, 200, (0.13, 0.2, 0.66, 0.75))
    for key, line in lines.items():
        x, y = zip(*line, strict=True)
        dash = "--" if key == HELD_OUT else "-"
        marker = MARKERS.get(key) if len(x) < 30 else None
        axes.plot(x, y, color=hues[key], linewidth=1.6, linestyle=dash, marker=marker, markersize=3.5)
    axes.set_xlabel("% of training")
    axes.xaxis.set_major_locator(FixedLocator([0, 50, 100]))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if any(lines):
        name_ends(axes, [(*line[-1], title(key), hues[key]) for key, line in lines.items()], 0.11)
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


def short(text: str) -> str:
    return text if len(text) <= 14 else f"{text[:13]}…"
