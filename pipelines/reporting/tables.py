"""Methods and baselines side by side, one line each: accuracy, and what it cost."""

from pipelines.evaluation.approach import Approach
from pipelines.evaluation.champion import UNLABELLED
from pipelines.project.history import trained_seconds
from pipelines.reporting.results import READERS, Results

Table = list[dict[str, str]]


def accuracies(r: Results) -> Table:
    """Top-1 on test in percent, mean ± sd; without labels `UNLABELLED`. Methods first, baselines after them."""
    if not r.labelled:
        return [{"encoder": who, UNLABELLED: f"{f[UNLABELLED]:.1f}"} for who, f in r.figures.items() if UNLABELLED in f]
    return [
        {"encoder": approach.who, "read by": reading(approach)}
        | {column(n): str(points[n]) if n in points else "" for n in r.shots}
        for approach, points in r.cells().items()
    ]


def reading(approach: Approach) -> str:
    scratch = approach.how == "finetune" and not approach.pretrained
    return "from scratch" if scratch else READERS[approach.how]


def column(labels: str) -> str:
    return "1 label" if labels == "1" else f"{labels} labels"


def costs(r: Results) -> Table:
    """Of one training each: the pretrainings, then what is trained with labels; images: through the backbone."""
    return [
        *(pretraining(r, m) for m in r.config.methods),
        *(
            priced(f"{who}, fine-tuned" if who in r.config.methods else who, f["seconds"], f["images"])
            for who, f in r.figures.items()
            if "seconds" in f
        ),
    ]


def pretraining(r: Results, method: str) -> dict[str, str]:
    """Minutes are those of the steps, from the speed of every row of the history."""
    rows = r.histories[method]
    seconds = trained_seconds(rows, r.config.method(method).batch_size)
    memory = max((row["memory"] for row in rows if "memory" in row), default=None)
    return priced(f"{method}, pretrained", seconds, r.pretrained_images(method), memory)


def priced(training: str, seconds: float, images: float, memory: float | None = None) -> dict[str, str]:
    return {
        "training": training,
        "minutes": f"{seconds / 60:.2f}",
        "images": f"{images:,.0f}",
        "images/s": f"{images / max(seconds, 1e-9):,.0f}",
        "memory, MiB": "" if memory is None else f"{memory:,.0f}",
    }


def head(r: Results) -> str:
    """What the figures of the table are."""
    if not r.labelled:
        return "images of the test split that find a second view of themselves among all others', in percent"
    seeds, samples = len({s.seed for s in r.scores}), len({s.sample for s in r.scores})
    runs = f"{counted(seeds, 'seed')} and up to {counted(samples, 'label sample')}"
    mean = f"top-1 on the test split in percent by labels a class, mean ± sd over {runs}"
    return f"{mean}; the verdict compares two by the label samples that both have"


def counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"


def text(rows: Table) -> str:
    """A table for a terminal."""
    widths = {k: max(len(k), *(len(r[k]) for r in rows)) for k in rows[0]}
    top = "  ".join(k.ljust(w) for k, w in widths.items())
    body = ["  ".join(r[k].ljust(w) for k, w in widths.items()) for r in rows]
    return "\n".join([top, "─" * len(top), *body])
