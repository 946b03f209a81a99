"""The studies as Markdown for the docs, and their charts as files."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipelines.studies import charts, figure, markdown
from tests.pipelines.studies.example import STUDIES, result

RUN = ("S1", "S2", "M1", "D1", "X1")


@pytest.fixture(scope="module")
def text() -> str:
    return markdown.text(STUDIES, {name: result(name) for name in RUN})


def test_the_table_has_every_claim_with_its_verdict(text: str) -> None:
    rows = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("| ")][2:]
    claims = [(name, claim.claim) for name, of in STUDIES.items() for claim in of.claims]
    assert len(rows) == len(claims)
    for row, (name, claim) in zip(rows, claims, strict=True):
        assert claim in row
        assert ("not run" in row) == (name not in RUN)


def test_every_figure_of_a_study_stands_in_its_section(text: str) -> None:
    for name in RUN:
        part = text.partition(f"\n## {name}: ")[2].partition("\n## ")[0]
        for levels in result(name).figures.values():
            for level, values in levels.items():
                assert re.search(
                    rf"^\| {re.escape(level)} \|.* {re.escape(str(figure.Figure(tuple(values))))} \|", part, re.M
                )
        assert result(name).command in part
        assert STUDIES[name].question in part


def test_all_rows_of_a_table_have_as_many_columns(text: str) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.replace(r"\|", "").count("|") for line in table.splitlines()}) == 1


def test_links_lead_to_sections(text: str) -> None:
    anchors = {markdown.anchor(heading) for heading in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) == anchors


def test_a_study_that_was_not_run_has_no_section(text: str) -> None:
    assert "\n## D2" not in text
    assert "| D2 |" in text


def test_charts_are_files_beside_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = markdown.text(STUDIES, {"M1": result("M1")}, Path("docs/images"))
    assert "](../images/study-M1.svg)" in made
    assert (tmp_path / "docs/images/study-M1.svg").exists()


@pytest.mark.parametrize("name", STUDIES)
def test_a_picture_is_a_whole_svg_with_colours_for_light_and_dark(name: str) -> None:
    chart = charts.metrics(STUDIES[name], result(name))[0]
    made = markdown.picture(chart, name)
    root = ElementTree.fromstring(made)
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}svg")) == len(chart.panels)
    assert set(re.findall(r"var\(--([\w-]+)\)", made)) <= set(re.findall(r"--([\w-]+):", made))
    assert "prefers-color-scheme: dark" in made
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_a_scale_that_was_not_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["markdown", "gpu"])
    with pytest.raises(SystemExit) as end:
        markdown.main()
    assert "No study was run at the scale gpu. Run one: foundry study M1." in f"{end.value}{capsys.readouterr().err}"
