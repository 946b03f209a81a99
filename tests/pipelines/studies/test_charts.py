"""What the charts of a study show, in the units of their axes."""

from collections.abc import Iterator
from itertools import combinations
from statistics import mean
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipelines.reporting import charts as reporting
from pipelines.studies import charts
from tests.pipelines.studies.example import STUDIES, result


def drawn(name: str, side: str = "here") -> Any:
    """The axes of the first metric."""
    return charts.metrics(STUDIES[name], result(name))[0].panels[side].axes[0]


def test_a_line_goes_through_the_means_of_its_levels() -> None:
    figures = result("M1").figures["linear_all"]
    (line,) = drawn("M1").containers
    assert list(line[0].get_xdata()) == [STUDIES["M1"].levels[level].x for level in figures]
    assert list(line[0].get_ydata()) == pytest.approx([mean(of) for of in figures.values()])


def test_every_seed_is_a_dot() -> None:
    dots = {tuple(map(float, (*x.get_xdata(), *x.get_ydata()))) for x in drawn("M1").lines if len(x.get_xdata()) == 1}
    assert dots == {
        (STUDIES["M1"].levels[level].x, value)
        for level, of in result("M1").figures["linear_all"].items()
        for value in of
    }


def test_the_paper_stands_beside_on_the_same_axis_with_its_own_numbers() -> None:
    here, paper = (drawn("M1", side=side) for side in ("here", "paper"))
    assert here.get_xlim() == paper.get_xlim()
    assert here.get_ylim() != paper.get_ylim()
    reported = STUDIES["M1"].paper
    assert reported
    assert list(paper.containers[0][0].get_ydata()) == list(reported.numbers["linear_all"].values())


def test_without_numbers_of_the_paper_there_is_one_panel() -> None:
    assert list(charts.metrics(STUDIES["D1"], result("D1"))[0].panels) == ["here"]


def test_the_papers_numbers_of_another_label_count_are_called_so() -> None:
    of, found = STUDIES["M1"], result("M1")
    few = result("M1", figures={"linear_5": found.figures["linear_all"]})
    assert charts.metrics(of, few)[0].paper == "linear probe, all labels"
    assert charts.metrics(of, found)[0].paper == ""


def test_a_bar_ends_at_the_mean_of_its_level() -> None:
    figures = result("S2").figures["linear_all"]
    bars = drawn("S2").patches
    assert [bar.get_x() + bar.get_width() for bar in bars] == pytest.approx([mean(of) for of in figures.values()])


def test_bars_that_do_not_start_at_zero_say_so() -> None:
    axes = drawn("S2")
    assert axes.get_xlabel() == f"the axis starts at {axes.get_xlim()[0]:g}"
    assert axes.get_xlim()[0] > 0
    assert drawn("D2", side="paper").get_xlim()[0] == 0


def test_a_level_without_figures_is_shown_as_not_run() -> None:
    found = result("S2", without=["linear head"])
    texts = written(charts.metrics(STUDIES["S2"], found)[0].panels["here"])
    assert "not run" in texts
    assert "linear head" in texts


def test_a_matrix_is_symmetric_with_single_levels_on_its_diagonal() -> None:
    figures = result("S1").figures["linear_all"]
    axes = drawn("S1")
    names = [label.get_text().strip() for label in axes.get_xticklabels()]
    cells = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
    assert len(cells) == len(names) ** 2
    assert all(cells[column, row] == cells[row, column] for column, row in cells)
    for level, of in figures.items():
        first, _, second = level.partition(" + ")
        assert cells[names.index(first), names.index(second or first)] == f"{mean(of):.1f}"


def test_cells_that_the_paper_does_not_report_are_empty() -> None:
    assert len(drawn("S1", side="paper").texts) == 3 + 2 * 2  # three single levels, and two pairs in both orders


def test_a_curve_has_a_line_per_level() -> None:
    found = result("D1")
    for chart, of in zip(charts.curves(STUDIES["D1"], found), found.curves.values(), strict=True):
        drawn: Any = chart.panels["here"].axes[0].lines
        lines = {line.get_label(): line for line in drawn}
        assert {level: list(zip(*line.get_data(), strict=True)) for level, line in lines.items()} == of


def test_every_line_of_a_chart_has_a_colour_of_its_own() -> None:
    hues = charts.line_hues(STUDIES["X1"])
    assert len(set(hues.values())) == len(hues) == 6
    assert hues["SimCLR"] == reporting.colour("simclr")


@pytest.mark.parametrize("name", STUDIES)
def test_no_text_lies_over_another(name: str) -> None:
    found = result(name)
    for chart in [*charts.metrics(STUDIES[name], found), *charts.curves(STUDIES[name], found)]:
        for figure in chart.panels.values():
            canvas: Any = FigureCanvasAgg(figure)
            canvas.draw()  # places the texts
            renderer = canvas.get_renderer()
            boxes = {
                text: Text.get_window_extent(text, renderer) for text in texts_of(figure) if not text.get_rotation()
            }
            for (one, a), (other, b) in combinations(boxes.items(), 2):
                assert not a.overlaps(b), (chart.title, one.get_text(), other.get_text())
            assert min(box.x0 for box in boxes.values()) >= 0
            assert max(box.x1 for box in boxes.values()) <= figure.bbox.width


def texts_of(figure: Figure) -> Iterator[Text]:
    """That are to be read."""
    (axes,) = figure.axes
    for text in [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label]:
        low, high = sorted(axes.get_ylim())
        within = text not in axes.get_yticklabels() or low <= text.get_position()[1] <= high
        if text.get_text() and within:
            yield text


def written(figure: Figure) -> list[str]:
    return [text.get_text() for text in texts_of(figure)]
