"""The report of the studies: what stands on it, and as a browser shows it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.reporting import page as reporting
from pipelines.studies import figure, page, tables
from pipelines.studies.result import Result
from tests.browser import check, look, needs_chromium
from tests.pipelines.studies.example import STUDIES, png, result

NASTY = '<script>alert(1)<b>&"$x$'
STUDY = {
    "title": "How much to mask",
    "question": "How much should MAE mask?",
    **{"method": "mae", "source": "He et al., 2022", "factor": "mask ratio, %", "metrics": ["linear_5"]},
    "levels": {"10 %": {"x": 10}, "75 %": {"x": 75}},
    "claims": [{"claim": "75 % is best.", "source": "figure 5", "better": "75 %", "than": ["10 %"], "by": 1}],
    "scales": {"quick": {"recipe": "digits", "seeds": 3}},
}


def made(results: tables.Results) -> str:
    return reporting.render(page.context(STUDIES, results), page.TEMPLATE)


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Result]]:
    """At small scale all but D2, a few quick ones, and one of the user's own images."""
    small = {name: result(name) for name in STUDIES if name != "D2"}
    quick = {"M1": result("M1", "quick", 1, without=["40 %", "95 %"]), "S2": result("S2", "quick", 2)}
    own = {"M1": result("M1", "photos", dataset="photos", pictures={"75 %": png()})}
    return {"small": small, "quick": quick, "photos": own}


@pytest.fixture(scope="module")
def text(results: dict[str, dict[str, Result]]) -> str:
    return made(results)


def test_every_level_and_every_figure_of_a_result_is_on_the_page(
    text: str, results: dict[str, dict[str, Result]]
) -> None:
    for of in results.values():
        for found in of.values():
            part = section(text, found.name)
            for levels in found.figures.values():
                for level, values in levels.items():
                    assert f">{shown(level)}</th>" in part
                    assert f">{shown(str(figure.Figure(tuple(values))))}</td>" in part


def test_a_section_says_how_the_study_was_run(text: str, results: dict[str, dict[str, Result]]) -> None:
    for found in results["small"].values():
        part, of = section(text, found.name), STUDIES[found.name]
        for piece in (of.title, of.question, of.source, found.answer, found.command, found.machine, found.commit):
            assert shown(piece) in part
        assert of.paper is None or shown(of.paper.what) in part


def test_the_page_opens_with_how_many_claims_hold(text: str, results: dict[str, dict[str, Result]]) -> None:
    verdicts = tables.best_known(STUDIES, results)
    assert len(verdicts) == sum(len(of.claims) for of in STUDIES.values())
    assert f"<h1>{tables.counted(verdicts)}</h1>" in text
    assert text.index("<h1>") < text.index("Your images: photos</h2>") < text.index("At small scale</h2>")


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        (["HOLDS", "HOLDS", "not run"], "2 of 3 claims hold and 1 was not run."),
        (["UNDERPOWERED", "DOES NOT HOLD"], "None of 2 claims holds, 1 does not hold and 1 is underpowered."),
        (["HOLDS"], "1 of 1 claim holds."),
    ],
)
def test_the_verdicts_are_counted_in_one_sentence(verdicts: list[str], sentence: str) -> None:
    assert tables.counted(verdicts) == sentence


def test_a_claim_counts_with_the_largest_scale_at_which_it_was_run() -> None:
    quick, small = result("D1", "quick"), result("D1", "small")
    judged = [
        replace(found, claims=(replace(found.claims[0], verdict=v),))
        for found, v in [(quick, "HOLDS"), (small, "DOES NOT HOLD")]
    ]
    both = {"quick": {"D1": judged[0]}, "small": {"D1": judged[1]}}
    assert tables.best_known({"D1": STUDIES["D1"]}, both) == ["DOES NOT HOLD"]
    assert tables.scales({"quick": {}, "photos": {}, "small": {}, "gpu": {}}) == ["gpu", "photos", "small", "quick"]


def test_every_claim_stands_in_the_table_of_every_scale(text: str) -> None:
    for of in STUDIES.values():
        for claim in of.claims:
            assert text.count(f'class="word claim">{shown(claim.claim)}</th>') == 3


def test_a_study_that_was_not_run_shows_its_claim_and_its_command(text: str) -> None:
    part = section(text, "D2")
    assert "Not run yet." in part
    assert "foundry study D2" in part
    assert "not run</span>" in part


def test_a_level_without_figures_is_shown_as_not_run(text: str) -> None:
    rows = re.findall(r'<tr><th scope="row" class="word">95\u00a0%</th>(.*?)</tr>', section(text, "M1"))
    assert any(">not run</td>" in row for row in rows)


def test_a_difference_is_the_better_level_minus_the_other() -> None:
    row = next(tables.claims("S2", STUDIES["S2"], found := result("S2")))
    part = row.parts[0]
    of = {level: sum(values) / len(values) for level, values in found.figures["linear_all"].items()}
    assert part.difference == f"{of[part.better] - of[part.worse]:+.1f} points".replace("-", "−")
    assert part.paper == "+9.7"


def test_where_less_is_better_difference_interval_and_smallest_have_the_same_sign() -> None:
    found = result("S2", figures=result("S2").figures | {"seconds": {"no head": [100.0, 101.0, 102.0]}})
    claim = replace(
        found.claims[1],
        verdict="HOLDS",
        parts=(replace(found.claims[1].parts[0], ours=101.0, theirs=131.0, low=28.0, high=32.0),),
    )
    row = list(tables.claims("S2", STUDIES["S2"], replace(found, claims=(found.claims[0], claim))))[1]
    assert (row.parts[0].difference, row.smallest) == ("−30.0 s", "−5 s")
    assert row.parts[0].interval == "95 % interval −32.0 to −28.0"
    low, middle, high, limit, zero = row.parts[0].span
    assert zero < limit < low < middle < high


def test_with_fewer_than_three_seeds_there_is_no_interval() -> None:
    row = next(tables.claims("S2", STUDIES["S2"], result("S2", "quick", 2)))
    assert row.parts[0].interval == "two seeds: a different seed may change this"
    assert row.parts[0].span == ()


def test_what_a_user_names_is_text() -> None:
    found = result("D1", "photos", dataset=NASTY, command=NASTY, machine=NASTY, commit=NASTY, answer=NASTY)
    levels = {NASTY: [1.0, 2.0, 3.0], **found.figures["knn_all"]}
    of = replace(STUDIES["D1"], levels={NASTY: next(iter(STUDIES["D1"].levels.values())), **STUDIES["D1"].levels})
    nasty = replace(found, figures={"knn_all": levels}, pictures={NASTY: png()})
    made = reporting.render(page.context({"D1": of}, {NASTY: {"D1": nasty}}), page.TEMPLATE)
    assert "<script" not in made
    assert "<b>&amp;" not in made
    assert made.count("&lt;script&gt;alert(1)") > 10


def test_the_page_asks_for_nothing(text: str) -> None:
    assert "default-src 'none'" in text
    outside = text.replace("http://www.w3.org/", "").replace("http-equiv", "")
    assert "http" not in outside
    assert "url(" not in outside.replace("url(#", "")


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_a_browser_shows_all_of_it(text: str, tmp_path: Path, width: int, dark: bool) -> None:
    seen = look(text, tmp_path, width, dark)
    check(seen, width, dark)
    assert seen.charts == text.count("<svg ")
    assert "DOES NOT HOLD" in seen.text


@needs_chromium
def test_without_results_the_page_says_so(tmp_path: Path) -> None:
    seen = look(made({}), tmp_path)
    check(seen, 1440, False)
    assert "No study was run yet." in seen.text


def test_the_page_is_made_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("studies").mkdir()
    Path("studies/M1.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    found = result("M1", "quick", figures={"linear_5": {"10 %": [50.0], "75 %": [61.5]}}, claims=())
    found.write()
    replace(found, name="M9").write()  # of a study that there no longer is
    page.write()
    made = page.PAGE.read_text(encoding="utf-8")
    assert "61.5" in made
    assert "M9" not in made


def section(text: str, name: str) -> str:
    """Of a study."""
    return text.partition(f'<section class="study" id="{name}">')[2].partition("</section>")[0]


def shown(value: Any) -> str:
    """A text as it stands in the page."""
    return str(value).replace("&", "&amp;").replace("'", "&#39;").replace(" %", "\u00a0%").replace("± ", "±\u00a0")
