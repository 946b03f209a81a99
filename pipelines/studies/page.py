"""studies/report.html: the claims with their verdicts, then every study. Made of the results' and studies' files."""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipelines.evaluation.approach import title
from pipelines.evaluation.words import capital, seeds
from pipelines.project import ConfigError
from pipelines.project.stage import StageError
from pipelines.reporting import page
from pipelines.saving.atomic_files import replace
from pipelines.studies import cell, charts, result, study, tables
from pipelines.studies.charts import Chart
from pipelines.studies.result import Result
from pipelines.studies.study import Study
from pipelines.studies.tables import NOT_RUN, Levels, Row

PAGE = study.FOLDER / "report.html"
TEMPLATE = Path(__file__).with_name("page.html")
SIDES = {"here": "Here", "paper": "In the paper"}
GROUPS = {"S": "SimCLR", "M": "MAE", "D": "DINO", "X": "Across methods"}
NOTES = {
    "HOLDS": "the whole interval is above the smallest difference that matters",
    "DOES NOT HOLD": "the whole interval is below it: the effect is smaller, zero or opposite",
    "UNDERPOWERED": "too few seeds, or the interval contains it",
    NOT_RUN: "the reason stands beside each claim",
}

PICTURED = {  # reading of the study → what its pictures show
    "reconstruction": "Each row: an image, then what is shown of it and its reconstruction, with 25, 50, 75, 85, 90 "
    "and 95 % of the patches masked.",
    "outline": "Rows: test images; what counts as the object; the attention's mask of the head that overlaps most.",
    "histogram": "Two images, two pairs of views of each, and the histogram of every view's intensities.",
}


@dataclass(frozen=True)
class Run:
    """A study at one scale, as the page shows it. key: before the ids of its charts."""

    key: str
    scale: str
    result: Result
    claims: list[Row]
    charts: list[Chart]
    curves: list[Chart]
    levels: Levels
    facts: dict[str, str]
    here: str  # what stands below its charts
    pictured: str  # what its pictures show


def write() -> None:
    """Make the page of all results that there are."""
    studies = {name: study.load(name) for name in study.names()}
    text = page.render(context(studies, known(studies, result.every())), TEMPLATE)
    PAGE.parent.mkdir(exist_ok=True)
    replace(PAGE, lambda file: file.write(text.encode()))


def known(studies: Mapping[str, Study], results: Mapping[str, list[Result]]) -> dict[str, dict[str, Result]]:
    """Scale → study → its result, of the studies that there still are."""
    return {scale: {r.name: r for r in of if r.name in studies} for scale, of in results.items()}


def context(studies: Mapping[str, Study], results: tables.Results) -> dict[str, Any]:
    """All that the page says and shows."""
    verdicts = tables.best_known(studies, results)
    counts, scales = Counter(verdicts), tables.scales(results)
    return {
        "summary": tables.counted(verdicts),
        "tiles": [(word, counts[word], tables.WORDS[word][2], note) for word, note in NOTES.items()],
        "scales": [(scale_name(scale), scale, tables.rows(studies, results[scale])) for scale in scales],
        "answers": {scale: answers(studies, results[scale]) for scale in scales},
        "own": [scale for scale in scales if scale not in study.SCALES],
        "studies": studies,
        "groups": {
            GROUPS.get(key, key): [n for n in studies if n[0] == key] for key in dict.fromkeys(n[0] for n in studies)
        },
        "runs": {name: runs(name, of, results, scales) for name, of in studies.items()},
        "unmeasured": {name: list(tables.claims(name, of, None)) for name, of in studies.items()},
        "reported": {name: charts.metrics(of, None) for name, of in studies.items()},
        "sides": SIDES,
        "picture": picture,
        "not_run": NOT_RUN,
        "title": title,
        "marks": {word: mark for word, (_, _, mark) in tables.WORDS.items()},
        "brief": tables.brief,
    }


def scale_name(scale: str) -> str:
    """What a scale is called in a heading."""
    names = {"gpu": "On a GPU", "small": "At small scale", "quick": "Quick runs"}
    return names.get(scale, f"Your images: {scale}")


def answers(studies: Mapping[str, Study], results: Mapping[str, Result]) -> list[tuple[str, str, str]]:
    """Study, the user's question, and its answer."""
    return [(name, of.question, results[name].answer) for name, of in studies.items() if name in results]


def runs(name: str, of: Study, results: tables.Results, scales: list[str]) -> list[Run]:
    """A study at every scale at which it was run, the largest first."""
    return [
        Run(
            key=f"{name}-{i}",
            scale=scale_name(scale),
            result=(r := results[scale][name]),
            claims=list(tables.claims(name, of, r)),
            charts=charts.metrics(of, r),
            curves=charts.curves(of, r),
            levels=tables.levels(of, r),
            facts=facts(of, r),
            here=", ".join(filter(None, (r.dataset, network(of, r), seeds(r.seeds)))),
            pictured=PICTURED.get(of.reading or "", ""),
        )
        for i, scale in enumerate(scales)
        if name in results[scale]
    ]


def facts(of: Study, r: Result) -> dict[str, str]:
    """How the study was made."""
    scale = of.scales.get(r.scale)
    fixed = [f"{key} = {json.dumps(value)}" for key, value in scale.set.items()] if scale else []
    return {
        "Images": r.dataset,
        "What was varied": of.factor,
        "What was fixed": "; ".join([f"recipe {scale.recipe}", *fixed])
        if scale
        else "your params.yaml, or the recipe photos where that is for another data set",
        "Seeds per level": str(r.seeds),
        "Time of training": f"{tables.duration(r.seconds)} in all",
        "Machine": r.machine,
        "Commit": r.commit,
    }


def network(of: Study, r: Result) -> str:
    """The encoder that the scale's recipe trains, as its key; empty of the user's own images."""
    with suppress(ConfigError, StageError, KeyError):
        scale = of.scales[r.scale]
        params = cell.with_values(cell.base_params(scale.recipe, None), scale.set, "")
        encoder = params[of.method]["encoder"]
        return str(encoder["arch"]) + (
            f" with patches of {encoder['patch_size']} px" if "patch_size" in encoder else ""
        )
    return ""


def picture(level: str, data: str) -> Markup:
    """A picture of a level, a PNG in Base64."""
    return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(data, capital(level))
