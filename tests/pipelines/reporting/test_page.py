"""The page whatever things are called, and as a browser shows it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import report
from pipelines.evaluation.verdict import Figure, Verdict
from pipelines.reporting import charts, page
from tests.browser import check, look, needs_chromium
from tests.pipelines.reporting.names import keys_in

NASTY = '<script>alert(1)</script><b>&"$x$'


@pytest.fixture(scope="module")
def context() -> dict[str, Any]:
    """Of two classes and little else, all that a user names being nasty."""
    features = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    tile = np.full((8, 8, 4), 255, np.uint8)
    counts = np.array([[9, 1], [0, 10]])
    table = [{"encoder": "SimCLR", "classifier": "linear probe", "1 label": "80.0 ± 1.0"}]
    figures = tuple(Figure(label, "80.0 %", NASTY) for label in ("Best pretrained", "Best without", "Difference"))
    chart = charts.training({"simclr": [{"step": step, "loss": 1 / step, NASTY: step} for step in (1, 2)]})
    return {
        **dict.fromkeys(("dataset", "all_labels", "head", "queries", "curl", "transformer"), NASTY),
        **{"labelled": True, "champion": "simclr", "share": 60, "first_signals": 1, "confused": []},
        "verdict": Verdict("No clear difference.", figures, (), (NASTY,), NASTY, (NASTY,)),
        "headline": charts.small({"simclr": [(0, 1), (1, 2)]}, {"simclr": charts.colour("simclr")}),
        "leaders": [NASTY],
        "diagnoses": {"simclr": {"name": "healthy", "because": NASTY, "change": NASTY}},
        "curves": {"simclr": charts.small({"simclr": [(0, 1), (1, 2)]}, {"simclr": charts.colour("simclr")})},
        **{"accuracies": table, "costs": table, "marks": ["simclr"], "cost_marks": ["simclr"]},
        "training": chart,
        **{key: {"simclr": tile} for key in ("neighbours", "views", "attention")},
        "maps": {"simclr": charts.embedding_map(features, np.arange(20) % 2, [NASTY, "b"], "simclr")},
        "reconstructions": {"mae": {"original": tile, "50% hidden": tile}},
        "without_attention": ["dino"],
        **{"confusion": counts, "classes": [NASTY, "b"]},
        "facts": {"Classes": NASTY},
    }


def test_what_a_user_names_is_text(context: dict[str, Any]) -> None:
    text = page.render(context)
    assert "<script" not in text
    assert "<b>&amp;" not in text
    assert text.count("&lt;script&gt;alert(1)") > 10


@pytest.mark.parametrize(("name", "mark"), [("healthy", "good"), ("diverged", "bad"), ("not judged", "quiet")])
def test_a_training_that_was_not_judged_is_neither_good_nor_bad(context: dict[str, Any], name: str, mark: str) -> None:
    text = page.render(context | {"diagnoses": {"simclr": {"name": name, "because": "", "change": ""}}})
    assert f'--mark: var(--{mark})"><b>SimCLR: {name}</b>' in text


def test_a_page_asks_for_nothing(context: dict[str, Any]) -> None:
    text = page.render(context)
    assert "default-src 'none'" in text
    outside = text.replace("http://www.w3.org/", "")  # names of formats, which nobody fetches
    assert "http" not in outside.replace("http-equiv", "")
    assert "url(" not in outside.replace("url(#", "")


def test_the_page_opens_with_the_answer_its_figures_a_picture_and_the_caveats(context: dict[str, Any]) -> None:
    text = page.render(context)
    order = ["<h1>No clear difference.</h1>", "Best pretrained", "Difference", 'aria-label="Test accuracy']
    order += [f'id="{of}"' for of in ("caveats", "champion", "health", "neighbours", "attention", "training", "tables")]
    places = [text.index(piece) for piece in order]
    assert places == sorted(places)


def test_without_labels_the_first_picture_shows_the_champions_neighbours(context: dict[str, Any]) -> None:
    text = page.render(context | {"labelled": False, "headline": None, "curves": {}, "confusion": None})
    assert text.index("Nearest neighbours by SimCLR") < text.index('id="caveats"')
    assert 'id="accuracy"' not in text


def test_every_table_says_what_a_row_is(context: dict[str, Any]) -> None:
    captions = re.findall(r'class="quiet caption">([^<]*)</p>\s*<div class="scroll"', page.render(context))
    assert len(captions) == 3
    assert all(caption.startswith("Each row is ") for caption in captions)


def test_methods_are_called_as_their_authors_call_them(context: dict[str, Any]) -> None:
    assert keys_in(page.render(context)) == set()
    assert keys_in("<p>the loss of simclr, mae.</p>") == {"simclr", "mae"}
    assert keys_in("<p>raise simclr.epochs of digits-simclr</p><code>dino</code>") == set()


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1440, True)])
def test_a_browser_shows_all_of_it(context: dict[str, Any], tmp_path: Path, width: int, dark: bool) -> None:
    seen = look(page.render(context), tmp_path, width, dark)
    check(seen, width, dark)
    assert seen.text.count(NASTY) > 10


def test_every_colour_has_a_contrast_on_both_pages() -> None:
    for (name, pair), ground in ((item, g) for item in page.COLOURS.items() if item[0] != "rule" for g in (0, 1)):
        text, back = luminance(pair[ground]), luminance(("#ffffff", "#14171b")[ground])
        assert (max(text, back) + 0.05) / (min(text, back) + 0.05) >= 4.5, (name, pair[ground])
    assert len({light for light, _ in page.COLOURS.values()}) == len(page.COLOURS)  # a colour says which


def luminance(colour: str) -> float:
    """WCAG 2.1's relative luminance of #rrggbb."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_the_pairs_that_are_confused_most_come_first() -> None:
    counts = np.array([[9, 3, 0], [7, 5, 0], [0, 0, 4]])
    assert [tuple(row.values()) for row in report.confused(counts, ["a", "b", "c"])] == [
        ("b", "a", "7"),
        ("a", "b", "3"),
    ]
