"""Test accuracy against labels per class, as charts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from models.methods import BASELINES
from pipelines.evaluation.approach import Approach, title
from pipelines.evaluation.scores import INITIAL
from pipelines.reporting import charts
from pipelines.reporting.results import Cells, Results

ENDS = {"supervised": "supervised", "pseudolabel": "pseudo-labels"}  # short names for the ends of lines


def name(kind: str) -> str:
    """What stands at the end of a line."""
    return ENDS.get(kind, title(kind))


def headline(r: Results) -> Figure:
    """Test accuracy against labels per class: the best approach of each method and of each baseline.

    A random encoder is so far below that the others would lie on each other.
    """
    return curves(r, r.cells(), {a: name(a.kind) for a in r.shortlist() if a.kind != "random"})


def label_efficiency(r: Results) -> dict[str, Figure]:
    """Test accuracy against labels per class: `frozen`, and per method every way to a classifier on its backbone."""
    cells = r.cells()
    frozen = {a: frozen_name(a) for a in cells if a.how == "linear"}
    figures = {"frozen": curves(r, cells, frozen)}
    for m in r.config.methods:
        names = {Approach(m, "linear"): "linear probe", Approach(m, "finetune"): "fine-tuned"}
        names |= {Approach(f"{m}-pseudolabel", "finetune"): "+ pseudo-labels"}
        names |= {Approach(f"{INITIAL}-{m}", "finetune"): name(INITIAL)}
        names |= {Approach(f"{c}-{r.backbone(m)}", "finetune"): name(c) for c in BASELINES}
        if any(a in cells and a.how == "finetune" for a in names):
            figures[m] = curves(r, cells, names)
    return figures


def frozen_name(approach: Approach) -> str:
    """`SimCLR`, `random (SimCLR)`, `starting (SimCLR)`, `raw pixels`."""
    backbone = approach.who.partition("-")[2]
    short = {"random": "random", INITIAL: "starting"}
    return f"{short[approach.kind]} ({title(backbone)})" if backbone else name(approach.kind)


def curves(r: Results, cells: Cells, names: Mapping[Approach, str]) -> Figure:
    """One line per approach, a band of one sd to either side, its name at its end."""
    figure, axes = charts.canvas(400, 290, (0.08, 0.15, 0.57, 0.81))
    shown = {a: points for a, points in cells.items() if a in names}
    ends = []
    for approach, points in shown.items():
        more = "-" in approach.who
        style: Any = "-"
        if approach.pretrained and approach.how == "finetune":
            style = (0, (1, 1.3)) if more else (0, (5, 2))
        at, hue = [r.per_class(n) for n in points], charts.colour(approach.who)
        mean, sd = (np.array([getattr(p, name) for p in points.values()]) for name in ("mean", "sd"))
        axes.fill_between(at, mean - sd, mean + sd, color=hue, alpha=0.13, linewidth=0)
        axes.plot(
            at, mean, color=hue, linestyle=style, marker=charts.MARKERS[approach.kind], markersize=4.5, linewidth=1.8
        )
        ends.append((at[-1], mean[-1], names[approach], hue))
    shots = [n for n in r.shots if any(n in points for points in shown.values())]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([r.per_class(n) for n in shots]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(shots)
    axes.set_xlabel("labels per class")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    charts.name_ends(axes, ends, 0.068)
    return figure
