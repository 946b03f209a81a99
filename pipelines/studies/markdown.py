"""The studies of one scale as Markdown, for the docs: `python -m pipelines.studies.markdown small`.

--charts writes the first chart of each study as an SVG file into a folder, and the text refers to it.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from markupsafe import escape

from pipelines.evaluation.words import capital, seeds
from pipelines.project import ConfigError
from pipelines.reporting import page
from pipelines.studies import charts, result, study, tables
from pipelines.studies.charts import Chart
from pipelines.studies.page import SIDES, known, network
from pipelines.studies.result import Result
from pipelines.studies.study import Study
from pipelines.studies.tables import Row
from serving.host.command import Parser, command

DOCS = Path("docs/explanation")  # where the text will lie
BETWEEN, ABOVE, MARGIN = 30, 34, 14  # px around the panels of a picture
GROUND = (
    "#ffffff",
    "#14171b",
)  # a picture has its own, because the docs may be dark where the reader's system is light
STYLE = """text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--ink); }
.title { font-size: 14px; font-weight: 600; }"""


def main() -> None:
    parser = Parser(prog="python -m pipelines.studies.markdown", description=__doc__)
    parser.add_argument("scale", metavar="SCALE", help="quick, small, gpu, or a data set of yours")
    parser.add_argument("--charts", type=Path, metavar="FOLDER", help="write the charts into this folder")
    given = parser.parse_args()
    with command(ConfigError):
        studies = {name: study.load(name) for name in study.names()}
        results = known(studies, result.every()).get(given.scale, {})
        if not results:
            raise ConfigError(f"No study was run at the scale {given.scale}. Run one: foundry study M1.")
        print(text(studies, results, given.charts))


def text(studies: Mapping[str, Study], results: Mapping[str, Result], folder: Path | None = None) -> str:
    """All claims as a table, then a section per study that was run."""
    rows = tables.rows(studies, results)
    parts = [
        tables.counted([row.verdict for row in rows]),
        table(HEAD, [cells(row, studies[row.study]) for row in rows]),
    ]
    for name, found in ((name, results[name]) for name in studies if name in results):
        parts += section(studies[name], found, folder)
    return "\n\n".join(parts)


HEAD = ("study", "claim", "verdict", "difference here", "smallest that matters", "difference in the paper", "seeds")


def cells(row: Row, of: Study) -> tuple[str, ...]:
    """A claim as a row; of several comparisons the one that decides."""
    if not row.parts:
        return (row.study, row.claim, row.verdict, "–", "–", "–", "–")
    first = row.parts[0]
    against = f", against {first.worse}" if len(row.parts) > 1 else ""
    difference = f"{first.difference} ({first.interval}){against}"
    name = f"[{row.study}](#{anchor(heading(row.study, of))})"
    return (name, row.claim, f"**{row.verdict}**", difference, row.smallest, first.paper or "–", str(row.seeds))


def heading(name: str, of: Study) -> str:
    return f"{name}: {of.title}"


def anchor(heading: str) -> str:
    """As MkDocs makes it of a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def section(of: Study, found: Result, folder: Path | None) -> Iterator[str]:
    """One study: its question and answer, its chart, its claims, every level, and how it was run."""
    yield f"## {heading(found.name, of)}"
    yield f"*{of.question}* {found.answer}"
    if folder and (drawn := charts.metrics(of, found)):
        path = folder / f"study-{found.name}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(picture(drawn[0], path.stem), encoding="utf-8")
        what = f"{drawn[0].title}: {' and '.join(SIDES[side].lower() for side in drawn[0].panels)}"
        yield f"![{what}]({os.path.relpath(path, DOCS)})"
    yield "\n".join(line for row in tables.claims(found.name, of, found) for line in judged(row))
    levels = tables.levels(of, found)
    yield table(levels.head, levels.body)
    here = ", ".join(filter(None, (found.dataset, network(of, found), seeds(found.seeds))))
    paper = f" The paper ({of.source}): {of.paper.what}." if of.paper else f" The paper: {of.source}."
    yield f"Here: {here}; mean ± standard deviation over seeds.{paper}"
    yield f"```\n{found.command}\n```"
    time = tables.duration(found.seconds)
    yield f"{time} of training in all on {found.machine}, commit `{found.commit[:12]}`."


def judged(row: Row) -> Iterator[str]:
    """A claim as an item of a list, with an item below it for each comparison."""
    needed = f" {row.needed}" if row.needed else ""
    yield f"- **{capital(row.verdict)}**: {row.claim} {capital(row.source)}.{needed}"
    for part in row.parts:
        paper = f" In the paper {part.paper}." if part.paper else ""
        yield (
            f"    - {part.better} {part.ours}, {part.worse} {part.theirs}: {part.difference} ({part.interval}); the "
            f"smallest difference that matters is {row.smallest}.{paper}"
        )


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, the first column to the left."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)] if head is not HEAD else ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def picture(chart: Chart, name: str) -> str:
    """A chart as an SVG file of its own, its panels side by side, light or dark as the reader's system is."""
    panels = {side: str(page.svg(of, f"{name}-{side}", chart.title)) for side, of in chart.panels.items()}
    sizes = {
        side: tuple(map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])) for side, svg in panels.items()
    }
    titles = {"here": chart.title, "paper": chart.paper or chart.title}
    left, body = float(MARGIN), []
    for side, svg in panels.items():
        width, height = sizes[side]
        body.append(
            f'<text class="title" x="{left:g}" y="{MARGIN + 12}">{escape(f"{SIDES[side]}: {titles[side]}")}</text>'
        )
        body.append(svg.replace("<svg ", f'<svg x="{left:g}" y="{ABOVE}" width="{width:g}" height="{height:g}" ', 1))
        left += width + BETWEEN
    whole, high = left - BETWEEN + MARGIN, max(height for _, height in sizes.values()) + ABOVE + MARGIN
    light, dark = (
        " ".join(f"--{key}: {pair[shade]};" for key, pair in {**page.COLOURS, "page": GROUND}.items())
        for shade in (0, 1)
    )
    colours = f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {whole:g} {high:g}" width="{whole:g}" height="{high:g}">\n<style>{colours}\n{STYLE}</style>\n'
        '<rect width="100%" height="100%" rx="8" style="fill: var(--page)"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


if __name__ == "__main__":
    main()
