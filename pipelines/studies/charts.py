"""Charts of a study, drawn like the paper's: what was measured here, and beside it what the paper reports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import mean, stdev
from textwrap import wrap
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from pipelines.evaluation.words import capital
from pipelines.reporting import charts
from pipelines.reporting.axes import LINE, NAME, TEXT, WIDTH, end_names, number_axis, placed, plot, seeds, wide
from pipelines.reporting.charts import INK, RULE
from pipelines.studies import figure as measured
from pipelines.studies.figure import SIGNAL
from pipelines.studies.metric import HOW, named, unit
from pipelines.studies.result import Result
from pipelines.studies.study import Study

HUES = [light for light, _ in charts.CLASSES.values()]
FULL = 0.42  # opacity of the highest cell of a matrix, on which text in ink can still be read
STYLE: Any = charts.STYLE | {"text.parse_math": False}
Values = Mapping[str, Sequence[float]]  # level → a figure per seed
Drawing = Callable[[Study, Sequence[str], Values, bool], Figure]


@dataclass(frozen=True)
class Chart:
    """A metric or a signal. panels: `here`, and `paper` where it has numbers; paper: their metric, if it is another."""

    title: str
    panels: Mapping[str, Figure]
    paper: str = ""


def metrics(study: Study, result: Result | None) -> list[Chart]:
    """One chart per metric, the first one first. Of a study that was not run, what the paper reports."""
    ours: Mapping[str, Values] = result.figures if result else {}
    return [
        Chart(
            heading(metric),
            drawn(study, {"here": ours.get(metric, {}), "paper": reported(study, metric)}),
            "" if (other := paper_metric(study, metric)) in (None, metric) else named(str(other)),
        )
        for metric in ours or (study.paper.numbers if study.paper else {})
    ]


def heading(metric: str) -> str:
    """`Linear probe, all labels (%)`."""
    name = (
        charts.SIGNALS.get(metric.removeprefix(SIGNAL), named(metric)) if metric.startswith(SIGNAL) else named(metric)
    )
    return capital(name) + (f" ({unit(metric)})" if unit(metric) else "")


def reported(study: Study, metric: str) -> Values:
    """The paper's numbers for this metric."""
    found = study.paper.numbers[key] if study.paper and (key := paper_metric(study, metric)) else {}
    return {level: [float(x)] for level, x in found.items() if isinstance(x, int | float) and level in study.levels}


def paper_metric(study: Study, metric: str) -> str | None:
    """The metric of the paper's numbers: the same; without it one of the same kind, such as a linear probe."""
    known = study.paper.numbers if study.paper else {}
    how = metric.partition("_")[0]
    alike = (other for other in known if how in HOW and other.partition("_")[0] == how)
    return metric if metric in known else next(alike, None)


@rc_context(STYLE)
def drawn(study: Study, sides: Mapping[str, Values]) -> dict[str, Figure]:
    """The same kind of chart for each side that has numbers."""
    shown = {side: {k: v for k, v in of.items() if all(map(isfinite, v))} for side, of in sides.items()}
    levels = [level for level in study.levels if any(level in of for of in shown.values())]
    draw: Drawing = {"lines": lines, "bars": bars, "matrix": matrix}[study.chart]
    return {side: draw(study, levels, of, side == "paper") for side, of in shown.items() if of}


def lines(study: Study, levels: Sequence[str], values: Values, paper: bool) -> Figure:
    """Mean and sd against the level's number, one line per group of levels. levels: that decide the axis."""
    hues = line_hues(study)
    names = list(dict.fromkeys(study.levels[level].line for level in levels)) if len(hues) > 1 else []
    flat = [level for level in values if study.levels[level].x is None]
    figure, axes = plot([*names, *flat], 250)
    places = sorted({x for level in levels if (x := study.levels[level].x) is not None})
    number_axis(axes, places, study.log_x)
    axes.set_xlabel(study.factor)
    ends = []
    for line, hue in hues.items():
        points = sorted((x, of) for level, of in values.items() if (x := on(study, level, line)) is not None)
        if not points:
            continue
        xs, means = [x for x, _ in points], [mean(of) for _, of in points]
        style: Any = {"color": hue, "marker": "o", "markersize": 5.5, "linewidth": 1.8}
        axes.errorbar(xs, means, [sd(of) for _, of in points], elinewidth=1.2, label=line, **style)
        seeds(axes, [(x, value) for x, of in points for value in of if len(of) > 1], hue)
        ends.append((xs[-1], means[-1], line, hue))
    for level in flat:
        axes.axhline(mean(values[level]), color=INK, linewidth=1.2, linestyle="--", label=level)
        ends.append((axes.get_xlim()[1], mean(values[level]), level, INK))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    end_names(axes, [end for end in ends if end[2] in (*names, *flat)])
    return figure


def on(study: Study, level: str, line: str) -> float | None:
    return study.levels[level].x if study.levels[level].line == line else None


def line_hues(study: Study) -> dict[str, str]:
    """Line → its colour: that of the method or the baseline with whose name it begins, if no other line has it."""
    names = dict.fromkeys(level.line for level in study.levels.values())
    if len(names) < 2:
        return dict.fromkeys(names, charts.colour(study.method))
    own = {name: next((key for key in charts.MARKERS if plain(name).startswith(key)), "") for name in names}
    rest = iter([*HUES[len(charts.MARKERS) - 2 :], *HUES] if any(own.values()) else HUES * len(names))
    found: dict[str, str] = {}
    for name, key in own.items():
        hue = charts.colour(key) if key else ""
        found[name] = hue if hue and hue not in found.values() else next(rest)
    return found


def plain(name: str) -> str:
    return name.casefold().replace("-", "")


def bars(study: Study, levels: Sequence[str], values: Values, paper: bool) -> Figure:
    """A bar per level from top to bottom, with its sd, its seeds and its figure."""
    names = [wrap(level, NAME) or [""] for level in levels]
    heights = [max(28, LINE * len(name) + 10) for name in names]
    middles = [sum(heights[:i]) + height / 2 for i, height in enumerate(heights)]
    left = max(wide(line) for name in names for line in name) + 10
    texts = given(values) if paper else {level: written(of) for level, of in values.items()}
    right = max(map(wide, [*texts.values(), "not run"])) + 12
    figure, axes = placed(left, right, sum(heights), 44)
    low, high = start(values), max(*map(max, values.values()), *(mean(of) + sd(of) for of in values.values()))
    hue = charts.colour(study.method)
    for level, y in zip(levels, middles, strict=True):
        if level in values:
            of = values[level]
            axes.barh(y, mean(of) - low, 15, left=low, color=hue, alpha=0.55, linewidth=0, label=level)
            if len(of) > 1:
                axes.errorbar(mean(of), y, xerr=sd(of), color=INK, elinewidth=1.2)
                seeds(axes, [(value, y + 11) for value in of], INK)
        text = texts.get(level, "–" if paper else "not run")
        axes.annotate(text, (1, y), (8, 0), ("axes fraction", "data"), "offset points", fontsize=TEXT, va="center")
    axes.set_ylim(sum(heights), 0)
    axes.set_xlim(low, high + 0.02 * (high - low) if high > low else low + 1)
    axes.yaxis.set_major_locator(FixedLocator(middles))
    axes.set_yticklabels(["\n".join(name) for name in names])
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if low:
        axes.set_xlabel(f"the axis starts at {low:g}")
    return figure


def start(values: Values) -> float:
    """Where bars start: at 0, or where the figures are close to each other just below the lowest."""
    every = [value for of in values.values() for value in of]
    low, high = min(every), max(every)
    if low <= 0.6 * high:
        return min(0.0, low)
    return float(MaxNLocator(4).tick_values(low - 0.3 * (high - low), high)[0]) if high > low else 0.0


def matrix(study: Study, levels: Sequence[str], values: Values, paper: bool) -> Figure:
    """Levels `a` and `a + b` as a symmetric matrix, single ones on its diagonal, the figure in each cell."""
    pairs = {level: pair for level in levels if (pair := both(level))}
    names = list(dict.fromkeys(name for pair in pairs.values() for name in pair))
    left = max(map(wide, names)) + 10
    side = (WIDTH - left - 4) / len(names)
    crowded = max(map(wide, names)) > side - 4  # then every second name stands a line lower
    below = 10.0 + LINE * (2 if crowded else 1)
    figure, axes = placed(left, 4, side * len(names), below)
    found = {pairs[level]: mean(of) for level, of in values.items() if level in pairs}
    texts = {pairs[level]: text for level, text in given(values).items() if level in pairs}
    low, high = min(found.values()), max(found.values())
    digits = 1 if high >= 10 else 2 if high >= 1 else 3
    texts = texts if paper else {pair: f"{value:.{digits}f}" for pair, value in found.items()}
    hue = charts.colour(study.method)
    for (a, b), value in found.items():
        share = (value - low) / (high - low) if high > low else 1.0
        for row, column in {(names.index(a), names.index(b)), (names.index(b), names.index(a))}:
            axes.bar(column, 0.94, 0.94, row - 0.47, color=hue, alpha=0.04 + FULL * share, linewidth=0)
            axes.text(column, row, texts[a, b], ha="center", va="center", fontsize=TEXT)
    for row, a in enumerate(names):
        for column, b in enumerate(names):
            if not {(a, b), (b, a)} & found.keys():
                axes.bar(column, 0.94, 0.94, row - 0.47, color="none", edgecolor=RULE, linewidth=1)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(len(names)), ["\n" * (crowded and i % 2) + name for i, name in enumerate(names)])
    return figure


def both(level: str) -> tuple[str, str] | None:
    """`crop + colour` → its two parts; of a single one twice the same; None of more."""
    first, *others = level.split(" + ")
    return None if len(others) > 1 else (first, others[0] if others else first)


@rc_context(STYLE)
def curves(study: Study, result: Result) -> list[Chart]:
    """A chart per signal: a line per level, over the training run of the first seed."""
    return [Chart(heading(f"{SIGNAL}{signal}"), {"here": curve(of)}) for signal, of in result.curves.items()]


def curve(of: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    known = {level: [point for point in points if isfinite(point[1])] for level, points in of.items()}
    known = {level: points for level, points in known.items() if points}
    figure, axes = plot(list(known), 220)
    ends = []
    for i, (level, points) in enumerate(known.items()):
        hue = HUES[i % len(HUES)]
        axes.plot(*zip(*points, strict=True), color=hue, linewidth=1.6, label=level)
        ends.append((*points[-1], level, hue))
    axes.set_xlabel("% of training")
    axes.xaxis.set_major_locator(FixedLocator([0, 50, 100]))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    end_names(axes, ends)
    return figure


def sd(of: Sequence[float]) -> float:
    return stdev(of) if len(of) > 1 else 0.0


def written(of: Sequence[float]) -> str:
    """`86.2 ± 1.3`."""
    return str(measured.Figure(tuple(of)))


def given(values: Values) -> dict[str, str]:
    """The paper's figures, with the same number of digits each."""
    digits = max((len(f"{of[0]:g}".partition(".")[2]) for of in values.values()), default=0)
    return {level: f"{of[0]:.{digits}f}" for level, of in values.items()}
