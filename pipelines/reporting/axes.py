"""Axes of a chart with the space that their texts need."""

from collections.abc import Iterator, Sequence
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, NullLocator

from pipelines.reporting import charts

WIDTH, TEXT, LINE = 400, 12, 16  # px: of a chart, of its text, from one line of text to the next
NAME = 20  # characters of a name in one line


def plot(names: Sequence[str], height: int) -> tuple[Figure, Axes]:
    """An empty chart with space at its right for these names, and high enough for them."""
    text = [wrap(name, NAME) or [""] for name in names]
    right = max((wide(line) for name in text for line in name), default=-18.0) + 28
    return placed(48, right, max(height - 60, (LINE + 2) * sum(map(len, text))), 46)


def end_names(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names at the right ends of lines, in one or two lines of text, none over another."""
    if not ends:
        return
    text = [(x, y, "\n".join(wrap(name, NAME)), hue) for x, y, name, hue in ends]
    high = axes.get_position().height * axes.figure.bbox.height * 72 / axes.figure.dpi
    charts.name_ends(axes, text, (LINE * max(name.count("\n") + 1 for _, _, name, _ in text) + 1) / high)


def placed(left: float, right: float, height: float, bottom: float) -> tuple[Figure, Axes]:
    """An empty chart whose axes are so high and have so much space around them, px."""
    top = 10
    whole = height + bottom + top
    place = (left / WIDTH, bottom / whole, (WIDTH - left - right) / WIDTH, height / whole)
    return charts.canvas(WIDTH, round(whole), place)


def number_axis(axes: Axes, places: Sequence[float], log: bool) -> None:
    """A tick at each level; its number where it does not cover another one."""
    if not places:
        axes.set_xticks([])
        return
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        apart = (places[-1] / places[0]) ** 0.05 if len(places) > 1 else 2.0
        axes.set_xlim(places[0] / apart, places[-1] * apart)
    else:
        apart = 0.05 * (places[-1] - places[0]) or 1.0
        axes.set_xlim(places[0] - apart, places[-1] + apart)
    axes.xaxis.set_major_locator(FixedLocator(list(places)))
    axes.set_xticklabels(list(spaced(axes, places)))


def spaced(axes: Axes, places: Sequence[float]) -> Iterator[str]:
    """The numbers of ticks, empty where they would touch the one before or the last one."""
    across = axes.get_position().width * WIDTH
    at = [across * axes.transAxes.inverted().transform(axes.transData.transform((x, 0)))[0] for x in places]
    text = [f"{x:,.6g}" for x in places]
    free = float("-inf")
    last = at[-1] - wide(text[-1]) / 2 - 5
    for i, (x, name) in enumerate(zip(at, text, strict=True)):
        half = wide(name) / 2
        if i == len(at) - 1 or (x - half > free and x + half < last):
            free = x + half + 5
            yield name
        else:
            yield ""


def seeds(axes: Axes, points: Sequence[tuple[float, float]], hue: str) -> None:
    """Single seeds as small dots."""
    for x, y in points:
        axes.plot(x, y, "o", color=hue, markersize=3.2, alpha=0.5, markeredgewidth=0)


def wide(text: str) -> float:
    """The width of a text, px."""
    return float(TextPath((0, 0), text, TEXT, prop=FontProperties()).get_extents().width) if text.strip() else 0.0
