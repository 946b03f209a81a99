"""What the flow prints at its end: the answer, the health of the training runs, a short table, and who is served."""

import textwrap
from collections.abc import Mapping

from pipelines.evaluation.approach import title
from pipelines.evaluation.words import listed
from pipelines.project import stage
from pipelines.reporting import tables
from pipelines.reporting.results import Results

LINES, COLUMNS = 21, 100
MOST = 2  # sentences on continued pretraining


def ending(r: Results) -> str:
    """At most `LINES` lines of `COLUMNS` columns; what does not fit is in the report."""
    v = r.verdict()
    answer = [line for sentence in (v.answer, *v.continued[:MOST]) for line in wrapped(sentence)]
    served = [*wrapped(v.champion, 3), f"Pictures, curves and the full table: {stage.PAGE}"]
    room = LINES - len(answer) - len(served) - 2  # the empty lines
    healthy = cut(health(r.diagnoses), room // 2, "More health checks are in the report.")
    table = tables.text(tables.short(r) if r.labelled else tables.accuracies(r)).splitlines()
    rows = with_champion(table, room - len(healthy) - 1, title(r.champion))
    return "\n".join([*answer, *healthy, "", f"{what(r)}:", *(row[:COLUMNS].rstrip() for row in rows), "", *served])


def with_champion(table: list[str], room: int, champion: str) -> list[str]:
    """The best rows, the champion's in any case."""
    rows = cut(table, room, "More rows are in the report.")
    own = next((row for row in table if champion in row), None)
    if own is None or own in rows:
        return rows
    return [*rows[:-2], own, rows[-1]]


def what(r: Results) -> str:
    """What the numbers of the table are."""
    if not r.labelled:
        return "Test images in % that find their own second view among those of all others"
    return f"Test accuracy in %, mean ± standard deviation over {tables.runs(r)}"


def health(diagnoses: Mapping[str, Mapping[str, str]]) -> list[str]:
    """One line for all healthy training runs, then each of the others with what to do."""
    well = [title(m) for m, d in diagnoses.items() if d["name"] == "healthy"]
    lines = [f"Health checks: {listed(well)} {'is' if len(well) == 1 else 'are'} healthy."] if well else []
    for m, d in diagnoses.items():
        if d["name"] != "healthy":
            lines += wrapped(f"Health check of {title(m)}: {d['name']}. {d['change']}")
    return lines


def wrapped(sentence: str, most: int | None = None) -> list[str]:
    """Lines of a sentence, at most so many."""
    return textwrap.wrap(sentence, COLUMNS, break_on_hyphens=False, max_lines=most, placeholder=" …")


def cut(lines: list[str], room: int, more: str) -> list[str]:
    """The lines, or those that fit and a last one that says that there are more."""
    return lines if len(lines) <= room else [*lines[: room - 1], more]
