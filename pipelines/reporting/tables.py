"""Methods and baselines side by side, one row each: accuracy, and what it cost."""

from pipelines.evaluation.approach import Approach, title
from pipelines.evaluation.champion import UNLABELLED
from pipelines.evaluation.scores import ALL
from pipelines.evaluation.words import capital
from pipelines.project.history import trained_seconds
from pipelines.reporting.results import Results

Table = list[dict[str, str]]
FOUND = "second views found"


def accuracies(r: Results) -> Table:
    """Test accuracy in percent, mean ± sd; without labels the second views found. Methods first, then baselines."""
    if not r.labelled:
        return [
            {"encoder": capital(Approach(who, "").encoder), FOUND: f"{f[UNLABELLED]:.1f}"}
            for who, f in measured(r).items()
        ]
    return [
        {"encoder": capital(approach.encoder), "classifier": approach.classifier}
        | {column(n): str(points[n]) if n in points else "" for n in r.shots}
        for approach, points in r.cells().items()
    ]


def measured(r: Results) -> dict[str, dict[str, float]]:
    """The figures of those whose second views were looked for."""
    return {who: figures for who, figures in r.figures.items() if UNLABELLED in figures}


def marks(r: Results) -> list[str]:
    """Of each row of `accuracies`, whose colour it has."""
    ways = r.cells() if r.labelled else [Approach(who, "") for who in measured(r)]
    return [way.kind for way in ways]


def column(labels: str) -> str:
    return "1 label" if labels == "1" else f"{labels} labels"


def head(r: Results) -> str:
    """What the numbers of `accuracies` are."""
    if not r.labelled:
        return "Second views found: % of test images whose nearest second view, among those of all others, is their own"
    return f"Test accuracy in % by labels per class, mean ± standard deviation over {runs(r)}"


def runs(r: Results) -> str:
    """`1 seed and up to 5 label samples`."""
    seeds, samples = len({s.seed for s in r.scores}), len({s.sample for s in r.scores})
    return f"{counted(seeds, 'seed')} and up to {counted(samples, 'label sample')}"


def counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"


def short(r: Results) -> Table:
    """The best approach of each method and of each baseline at the key label counts, the best first."""
    counts, cells = r.key_counts(), r.cells()
    rows = [(approach, cells[approach]) for approach in r.shortlist()]
    rows.sort(key=lambda row: [-row[1][n].mean if n in row[1] else 0.0 for n in counts])
    return [
        {"": capital(str(approach))} | {per_class(n): str(points[n]) if n in points else "not measured" for n in counts}
        for approach, points in rows
    ]


def per_class(labels: str) -> str:
    return "all labels" if labels == ALL else f"{labels} per class"


def costs(r: Results) -> Table:
    """What one training run each cost: pretraining, then what is trained with labels."""
    return [
        *(pretraining(r, m) for m in r.config.methods),
        *(
            priced(capital(f"{way.encoder}, {way.classifier}"), f["seconds"], f["images"])
            for way, f in ((Approach(who, "finetune"), f) for who, f in r.figures.items() if "seconds" in f)
        ),
    ]


def cost_marks(r: Results) -> list[str]:
    """Of each row of `costs`, whose colour it has."""
    return [*r.config.methods, *(Approach(who, "").kind for who, f in r.figures.items() if "seconds" in f)]


def pretraining(r: Results, method: str) -> dict[str, str]:
    """Minutes are those of the steps, from the speed in every row of the history."""
    rows = r.histories[method]
    seconds = trained_seconds(rows, r.config.method(method).batch_size)
    memory = max((row["memory"] for row in rows if "memory" in row), default=None)
    return priced(f"{title(method)}, pretraining", seconds, r.pretrained_images(method), memory)


def priced(run: str, seconds: float, images: float, memory: float | None = None) -> dict[str, str]:
    return {
        "training run": run,
        "minutes": f"{seconds / 60:.2f}",
        "images": f"{images:,.0f}",
        "images per second": f"{images / max(seconds, 1e-9):,.0f}",
        "peak memory, MiB": "" if memory is None else f"{memory:,.0f}",
    }


def text(rows: Table) -> str:
    """A table for a terminal: the first column to the left, numbers to the right."""
    first, *others = rows[0]
    lines = [dict(zip(rows[0], rows[0], strict=True)), *rows]
    widths = {k: max(len(line[k]) for line in lines) for k in rows[0]}
    return "\n".join(
        "  ".join([line[first].ljust(widths[first]), *(line[k].rjust(widths[k]) for k in others)]) for line in lines
    )
